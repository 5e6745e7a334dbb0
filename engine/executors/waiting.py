"""Calls that wait for an instance, and the starts of instances that they caused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from engine.executors.instance import Call, Ended, Instance
from engine.executors.log_buffer import LogBuffer
from engine.model import Invocation


class Start:
    """Start of one instance. If the user code fails, the start goes on with another process.

    ``warm`` means that the instance is wanted even if no call waits for it.
    """

    def __init__(self, call: Call, *, warm: bool) -> None:
        self.warm = warm
        self.call = call  #: exchange with the starting instance; collects the lines logged during the start
        self.instance: Instance | None = None  #: None while the start waits for capacity
        self.obsolete = False  #: the instance is dismissed as soon as no call waits
        self.task: asyncio.Task[bool]

    def disown(self) -> None:
        """Detach the start from the call for which it began, because the call no longer waits."""
        self.call.invocation = None
        if self.call.log_buffer is not None:
            self.call.log_buffer.invocation = None

    def take_log(self, invocation: Invocation | None) -> LogBuffer | None:
        """Return the lines of the start, which belong to ``invocation`` from now on, or to none."""
        log_buffer, self.call.log_buffer = self.call.log_buffer, None
        if log_buffer is not None:
            log_buffer.invocation = invocation
        return log_buffer


class WaitingCalls:
    """Calls that wait for an instance of one key, first come, first served, and the starts under way for the key."""

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

    def add(self, call: Call) -> asyncio.Future[Instance | Ended | None]:
        """Add a call, and return the future of its instance.

        Its result is an instance, the end of the call if a start failed, or None if the call was cancelled.
        """
        self._calls[call] = None
        call.assignment = asyncio.get_running_loop().create_future()
        return call.assignment

    def add_start(self, start: Start) -> None:
        self._starts[start.call] = start

    def remove_start(self, start: Start) -> None:
        del self._starts[start.call]

    def discard(self, call: Call) -> None:
        """Remove a call that no longer waits, and stop its start, or all starts after the last call, if not needed.

        A start whose process exists goes on, unless the call was cancelled.
        """
        self._calls.pop(call, None)
        call.assignment = None
        own = self._starts.get(call.started_by) if call.started_by is not None else None
        if own is not None:
            own.disown()
        for start in [own] if own is not None else list(self.starts) if not self._calls else []:
            needed = start.warm or self.uncovered + self._concurrency > 0
            if not needed and (call.cancelled or start.instance is None):
                self.remove_start(start)
                start.task.cancel()

    def cancel(self) -> None:
        """Cancel the wait of all calls, like the cancellation of their tasks."""
        for call in self._calls:
            if call.assignment is not None:
                call.assignment.cancel()

    def serve(self, instance: Instance, start: Start | None = None) -> None:
        """Assign calls to the instance, as many as it can serve.

        ``start`` is given if the instance has just become ready. The lines of the start belong to the first call.
        """
        while self._calls and instance.assigned < instance.concurrency:
            call = next(iter(self._calls))
            if self._settle(call, instance):
                instance.assigned += 1
                call.fresh = start is not None
                if start is not None and start.call.log_buffer is not None:
                    call.log_buffer = start.take_log(call.invocation)

    def fail(self, start: Start, reason: Ended | Exception) -> None:
        """End the calls that no other start serves, first the call for which the failed start began."""
        calls = sorted(self._calls, key=lambda call: call.started_by is not start.call)
        for call in calls[: max(0, self.uncovered)]:
            self._settle(call, reason)

    def _settle(self, call: Call, result: Instance | Ended | Exception) -> bool:
        """Set the result of a call's wait. Return False if the call was cancelled before."""
        del self._calls[call]
        if call.assignment is None or call.assignment.done():
            return False
        if isinstance(result, Exception):
            call.assignment.set_exception(result)
        else:
            call.assignment.set_result(result)
        return True
