"""Checks of a page: by axe at several widths, light and dark, and of its layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = (390, 820, 1440)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
#: The size of targets is not among the default rules.
_RULES: dict[str, object] = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
#: Rules whose result depends on width or colors.
_LAYOUT: dict[str, object] = {"resultTypes": ["violations"], "runOnly": ["target-size", "scrollable-region-focusable"]}
_COLORS: dict[str, object] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
_AXE = Axe()


def violations(page: Page) -> Iterator[str]:
    """Yield each violation of the page, with the width and the color scheme at which it is found."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            yield from _run(page, width, scheme, _RULES)


def checked(page: Page) -> list[str]:
    """Return the violations and overflows of the page, in a fifth of the time: each rule only where it may differ."""
    found = list(_run(page, WIDTHS[0], "light", _RULES))
    found += _run(page, WIDTHS[0], "dark", _COLORS)
    for width in WIDTHS[1:]:
        found += _run(page, width, "light", _LAYOUT)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if wider := _overflow(page):
            found.append(f"{page.url} at {width}: {wider} pixels wider than its window")
    return found


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window, at the narrowest width."""
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    return _overflow(page)


def _overflow(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


def _run(page: Page, width: int, scheme: Literal["light", "dark"], options: dict[str, object]) -> Iterator[str]:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE.axe_script)
    for found in page.evaluate("options => axe.run(options)", options)["violations"]:
        nodes = [node["html"][:200] for node in found["nodes"]]
        yield f"{page.url} at {width} {scheme}: {found['id']}: {found['help']}: {nodes}"
