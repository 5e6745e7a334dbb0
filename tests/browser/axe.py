"""Checks of a page: by axe at several widths, light and dark, and of its layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = (390, 820, 1440)
#: The size of targets is not among the default rules.
_RULES: dict[str, object] = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
#: Rules whose result depends on width or colors.
_LAYOUT: dict[str, object] = {"resultTypes": ["violations"], "runOnly": ["target-size", "scrollable-region-focusable"]}
_COLORS: dict[str, object] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
_AXE = Axe()


def violations(page: Page) -> list[str]:
    """Return each violation of a rule of axe, tried where its result may differ, and how much too wide it is."""
    page.wait_for_load_state()  # its scripts change its layout
    problems = list(_run(page, WIDTHS[0], "light", _RULES))
    problems += _run(page, WIDTHS[0], "dark", _COLORS)
    for width in WIDTHS[1:]:
        problems += _run(page, width, "light", _LAYOUT)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wider:
            problems.append(f"{page.url} at {width}: {wider} pixels wider than its window")
    return problems


def _run(page: Page, width: int, scheme: Literal["light", "dark"], options: dict[str, object]) -> Iterator[str]:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE.axe_script)
    for violation in page.evaluate("options => axe.run(options)", options)["violations"]:
        nodes = [node["html"][:200] for node in violation["nodes"]]
        yield f"{page.url} at {width} {scheme}: {violation['id']}: {violation['help']}: {nodes}"
