"""Calls that wait for an instance, and the starts of instances that they caused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from engine.executors.call import Call, Ended, Key
from engine.executors.instance import Instance
from engine.model import Function


class Start:
    """Start of one instance. If the user code fails, the start goes on with another process.

    ``cause`` is the call for which the start begins. None: the instance is wanted even if no call waits for it.
    """

    def __init__(self, key: Key, function: Function, cause: Call | None = None) -> None:
        self.cause = cause
        self.call = Call(key, function, None)  #: with the starting instance
        self.instance: Instance | None = None  #: None while the start waits for capacity
        self.obsolete = False  #: the instance is dismissed as soon as no call waits
        self.task: asyncio.Task[bool]
        if cause is not None:
            cause.enter_start(self.call)


class WaitingCalls:
    """Calls that wait for an instance of one key, and the starts under way for the key.

    First come, first served, but a start serves or ends the call for which it began before all others. The lines that
    it has logged are then in the log of the first request of its instance.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency  #: of each instance
        self._calls: OrderedDict[Call, None] = OrderedDict()
        self._starts: dict[Call, Start] = {}  #: by the start's own call

    def __bool__(self) -> bool:
        return bool(self._calls or self._starts)

    @property
    def starts(self) -> Iterable[Start]:
        return self._starts.values()

    @property
    def uncovered(self) -> int:
        """Number of waiting calls that the starting instances together cannot serve. Negative: spare concurrency."""
        return len(self._calls) - len(self._starts) * self._concurrency

    @property
    def need_each_start(self) -> bool:
        """True if some calls would have no instance with one start less."""
        return self.uncovered + self._concurrency > 0

    def add(self, call: Call) -> asyncio.Future[Instance | Ended | None]:
        """Add a call, and return the future of its instance.

        Its result is an instance, the end of the call if a start failed, or None if the call was cancelled.
        """
        self._calls[call] = None
        return call.wait()

    def add_start(self, start: Start) -> None:
        self._starts[start.call] = start

    def remove_start(self, start: Start) -> None:
        del self._starts[start.call]

    def discard(self, call: Call) -> None:
        """Remove a call that no longer waits, and stop its start, or all starts after the last call, if not needed.

        A start whose process exists goes on, unless the call was cancelled.
        """
        self._calls.pop(call, None)
        own = self._starts.get(call.started_by) if call.started_by is not None else None
        call.end_wait()
        if own is not None:
            self._stop_unneeded(own, started=call.stopped is not None)
        elif not self._calls:
            for start in list(self.starts):
                self._stop_unneeded(start, started=call.stopped is not None)

    def _stop_unneeded(self, start: Start, *, started: bool) -> None:
        """Stop a start if no call needs it. If its process exists, stop it only if ``started`` is True."""
        needed = start.cause is None or self.need_each_start
        if not needed and (started or start.instance is None):
            self.remove_start(start)
            start.task.cancel()

    def cancel(self) -> None:
        """Cancel the wait of all calls, like the cancellation of their tasks."""
        for call in self._calls:
            call.future.cancel()

    def serve(self, instance: Instance, start: Start | None = None) -> None:
        """Assign calls to the instance, as many as it can serve.

        ``start`` is given if the instance has just become ready.
        """
        while self._calls and instance.assigned < instance.concurrency:
            call = self._next(start)
            if self._settle(call, instance):
                instance.assigned += 1
                call.tries += start is not None

    def fail(self, start: Start, reason: Ended | Exception) -> bool:
        """End the calls that no other start serves. Return False if there are none."""
        ended = False
        while self.uncovered > 0:
            ended = self._settle(self._next(start), reason) or ended
        return ended

    def _next(self, start: Start | None) -> Call:
        """Return the call for which the start began, or else the one that has waited for longest."""
        cause = start.cause if start is not None else None
        return cause if cause is not None and cause in self._calls else next(iter(self._calls))

    def _settle(self, call: Call, result: Instance | Ended | Exception) -> bool:
        """Set the result of a call's wait. Return False if the call was cancelled before."""
        del self._calls[call]
        if call.future.done():
            return False
        if isinstance(result, Exception):
            call.future.set_exception(result)
        else:
            call.future.set_result(result)
        return True
