"""Pages and actions of the console, as its families declare them."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isabstract

import engine.app.console_wiring  # noqa: F401  (defines all families)
from engine.http.console.pages import PageFamily, PageOperation


def _families(kind: type[PageFamily] = PageFamily) -> Iterator[type[PageFamily]]:
    for family in kind.__subclasses__():
        if not isabstract(family):
            yield family
        yield from _families(family)


_OPERATIONS: tuple[PageOperation, ...] = tuple(one for family in _families() for one, _ in family.operations())
PAGES = tuple(one for one in _OPERATIONS if one.method == "GET")
ACTIONS = tuple(one for one in _OPERATIONS if one.method == "POST")
