"""Feed of new log lines for subscribers, such as triggers, and the logs for states of asynchronous invocations.

Lines are decoded only if there is a subscriber.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from engine.logs.forward import Forwarder
from engine.logs.lines import Line, decode
from engine.logs.target import LogTarget, status_log_target
from engine.model import Function, Invocation
from engine.model.signal import Signal

LINE = 100  #: added to the size of a line, which takes about as many bytes beside its text

log = structlog.get_logger("functiond.logs")


class FunctionLines(Struct, frozen=True, kw_only=True):
    """Lines that an instance of a function wrote at about the same time, with the request that it served."""

    function: Function
    lines: tuple[Line, ...]
    request_id: str = ""  #: empty if the instance wrote the lines outside requests
    source: str = ""  #: source of the request: a trigger type, ``FunctionGraph`` (a destination), REDRIVE or API
    hops: int = 0  #: number of functions that led to the request
    trace: str = ""  #: trace context with which the request came

    @property
    def size(self) -> int:
        """Number of characters, and ``LINE`` for each line, so that many short lines count as much as they take."""
        return sum(len(line.text) for line in self.lines) + LINE * len(self.lines)


Listener = Callable[[FunctionLines], None]


#: Writes rows to a table of the service's plugin, and removes the states that they contain from the engine's storage,
#: in one transaction. Must be called once. Raises Unavailable if nothing was written.
WriteRows = Callable[[str, Mapping[str, bytes]], Awaitable[None]]


class StatusLine(Struct, frozen=True, kw_only=True):
    text: str  #: JSON, as the platform writes it
    at: float  #: time of the change
    request_id: str


class StatusLines(Struct, frozen=True, kw_only=True):
    """Lines for one log stream, in their order."""

    project: str
    target: LogTarget
    lines: tuple[StatusLine, ...]


class StatusLineStore(Protocol):
    """Service that stores lines about states in log streams."""

    @property
    def plugin(self) -> str:
        """Name of the plugin's table in the settings, under which its rows are stored."""
        ...

    async def create(self, project: str, target: LogTarget, *, again: bool) -> None:
        """Create log group and log stream of ``target`` in a project, unless they exist.

        If ``again`` is False, those that were deleted after an earlier call are not created again.
        """
        ...

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        """Append lines to their log streams by one call of ``write``. Streams that do not exist are created.

        Raises Overloaded if the streams have no room.
        """
        ...


class LogBoard:
    """Distributor of log lines: calls each subscriber with the lines given to ``publish`` while it subscribes.

    ``status_store`` takes lines about states; None while no service does. ``status_store_changed`` announces a new one.
    """

    def __init__(self) -> None:
        self.forwarder: Forwarder | None = None  #: takes the output of all functions, too; set before there is any
        self.status_store: StatusLineStore | None = None
        self.status_store_changed: Signal[[]] = Signal()
        self._listeners: dict[int, list[Listener]] = {}  #: by function id; 0: all functions

    @contextmanager
    def subscribed(self, listener: Listener, *, function_id: int = 0) -> Iterator[None]:
        """Call ``listener`` with new lines of one function (id 0: of all functions), until the block ends.

        The listener is called in the event loop and must return without delay.
        """
        listeners = self._listeners.setdefault(function_id, [])
        listeners.append(listener)
        try:
            yield
        finally:
            listeners.remove(listener)
            if not listeners:
                self._listeners.pop(function_id, None)

    @contextmanager
    def status_lines_stored_by(self, store: StatusLineStore) -> Iterator[None]:
        """Give the lines about states of asynchronous invocations to ``store``, until the block ends."""
        self.status_store = store
        self.status_store_changed()
        try:
            yield
        finally:
            self.status_store = None

    async def status_log(self, project: str, *, again: bool, target: LogTarget | None = None) -> LogTarget:
        """Return log group and log stream for asynchronous states. They are created unless they exist.

        Without ``target``, they are those of the project. If ``again`` is False, those that a client has deleted are
        not created again. If no service stores log streams, nothing is created. Raises the errors of the service's
        writes to its store.
        """
        target = target or status_log_target(project)
        if self.status_store is not None:
            await self.status_store.create(project, target, again=again)
        return target

    def publish(self, function: Function, invocation: Invocation | None, lines: bytes) -> None:
        """Decode lines from their stored format and call the subscribers of the function.

        ``invocation`` is None if the instance wrote the lines while it served no request. An exception of a subscriber
        is logged and not raised.
        """
        if not self._listeners:
            return
        listeners = [*self._listeners.get(function.function_id, ()), *self._listeners.get(0, ())]
        if listeners:
            decoded = FunctionLines(function=function, lines=tuple(decode(lines)))
            if (run := invocation) is not None:
                known = {"request_id": run.request_id, "source": run.source, "hops": run.hops, "trace": run.trace}
                decoded = replace(decoded, **known)
            for listener in listeners:
                try:
                    listener(decoded)
                except Exception:  # an error of a listener must not affect the function
                    log.exception("log listener failed", function=function.name)
