"""Who hears the lines that functions write. With nobody to hear them, nothing is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import structlog
from msgspec import Struct

from engine.logs.lines import Line, decode
from engine.model import Function, Invocation

log = structlog.get_logger("functiond.logs")


class FunctionLines(Struct, frozen=True, kw_only=True):
    """What one run of a function wrote at once."""

    function: Function
    request_id: str  #: empty: lines of an instance that belong to none of its requests
    lines: tuple[Line, ...]
    source: str = ""  #: what called it: a trigger type, ``FunctionGraph`` or API
    hops: int = 0  #: how many functions led to the call


Listener = Callable[[FunctionLines], None]


class LogFeed(Protocol):
    """The lines that functions write, as they come. What was written before is not repeated."""

    def subscribed(self, listener: Listener, *, function_id: int = 0) -> AbstractContextManager[None]:
        """Within this, call ``listener`` in the loop with all lines, or those of one function.

        It must return at once.
        """
        ...


class LogBoard:
    """Satisfies ``LogFeed``, for those who have lines to tell."""

    def __init__(self) -> None:
        self._listeners: dict[int, list[Listener]] = {}  #: by function, 0 for those of all

    @contextmanager
    def subscribed(self, listener: Listener, *, function_id: int = 0) -> Iterator[None]:
        listeners = self._listeners.setdefault(function_id, [])
        listeners.append(listener)
        try:
            yield
        finally:
            listeners.remove(listener)
            if not listeners:
                self._listeners.pop(function_id, None)

    def tell(self, function: Function, invocation: Invocation | None, lines: bytes) -> None:
        """Lines as they are kept; None for those of the instance itself."""
        if not self._listeners:
            return
        listeners = [*self._listeners.get(function.function_id, ()), *self._listeners.get(0, ())]
        if listeners:
            told = _told(function, invocation, tuple(decode(lines)))
            for listener in listeners:
                try:
                    listener(told)
                except Exception:  # the function must not suffer for who listens
                    log.exception("a listener failed", function=function.name)


def _told(function: Function, invocation: Invocation | None, lines: tuple[Line, ...]) -> FunctionLines:
    if invocation is None:
        return FunctionLines(function=function, request_id="", lines=lines)
    return FunctionLines(
        function=function,
        request_id=invocation.request_id,
        lines=lines,
        source=invocation.source,
        hops=invocation.hops,
    )
