"""Feed of the lines that functions write. Lines are decoded only while someone subscribes."""

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
    """Lines that one run of a function wrote in one piece."""

    function: Function
    request_id: str  #: empty: lines of an instance outside its requests
    lines: tuple[Line, ...]
    source: str = ""  #: source of the request: a trigger type, ``FunctionGraph`` or API
    hops: int = 0  #: functions that led to the request


Listener = Callable[[FunctionLines], None]


class LogFeed(Protocol):
    """Lines that functions write, as they arrive. Earlier lines are not repeated."""

    def subscribed(self, listener: Listener, *, function_id: int = 0) -> AbstractContextManager[None]:
        """Call ``listener`` in the event loop for all lines, or those of one function, while the block is entered.

        The listener must return at once.
        """
        ...


class LogBoard:
    """Implementation of ``LogFeed``, with ``tell`` for publishing lines."""

    def __init__(self) -> None:
        self._listeners: dict[int, list[Listener]] = {}  #: by function id; 0: all functions

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

    def publish(self, function: Function, invocation: Invocation | None, lines: bytes) -> None:
        """Publish lines in their stored format. ``invocation`` is None for lines of the instance itself."""
        if not self._listeners:
            return
        listeners = [*self._listeners.get(function.function_id, ()), *self._listeners.get(0, ())]
        if listeners:
            decoded = _function_lines(function, invocation, tuple(decode(lines)))
            for listener in listeners:
                try:
                    listener(decoded)
                except Exception:  # an error of a listener must not affect the function
                    log.exception("log listener failed", function=function.name)


def _function_lines(function: Function, invocation: Invocation | None, lines: tuple[Line, ...]) -> FunctionLines:
    if invocation is None:
        return FunctionLines(function=function, request_id="", lines=lines)
    return FunctionLines(
        function=function,
        request_id=invocation.request_id,
        lines=lines,
        source=invocation.source,
        hops=invocation.hops,
    )
