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


_OPERATIONS: tuple[PageOperation, ...] = tuple(
    operation for family in _families() for operation, _ in family.operations()
)
PAGES = tuple(operation for operation in _OPERATIONS if operation.method == "GET")
ACTIONS = tuple(operation for operation in _OPERATIONS if operation.method == "POST")
