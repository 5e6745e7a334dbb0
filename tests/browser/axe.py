"""Check of a page by axe, at several widths, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = (390, 820, 1440)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_AXE = Axe()
_OPTIONS = {"resultTypes": ["violations"]}  #: takes half the time of complete results


def violations(page: Page) -> Iterator[str]:
    """Yield each violation of the page, with the width and the color scheme at which it is found."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            for found in _AXE.run(page, options=_OPTIONS).response["violations"]:
                nodes = [node["html"][:200] for node in found["nodes"]]
                yield f"{page.url} at {width} {scheme}: {found['id']}: {found['help']}: {nodes}"


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window, at the narrowest width."""
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found
