"""Alarms: callbacks at a time of day, also if the clock is set meanwhile.

A timer of the event loop measures elapsed time, so that it is wrong after a step of the clock. While alarms are set,
one timer therefore compares the clock with the elapsed time at least every ``check`` seconds. Without alarms, no timer
runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from engine.model.signal import Signal

CHECK = 30.0
#: Difference in seconds that counts as a step of the clock. Slow corrections of the clock stay below it.
STEP = 1.0
SPARE = 64  #: cancelled alarms that stay in the heap, so that it is rarely rebuilt


class Alarm:
    """Callback at a time of day. ``cancel`` may also be called after the callback."""

    __slots__ = ("_alarms", "at_steps", "callback")

    def __init__(self, alarms: Alarms, callback: Callable[[], object], *, at_steps: bool) -> None:
        self._alarms, self.at_steps = alarms, at_steps
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._alarms.note_cancelled()


class Alarms:
    """Alarms of one clock, in the event loop that sets them. ``stepped(seconds)`` announces a step of the clock.

    Steps are noticed while alarms are set.
    """

    def __init__(self, now: Callable[[], float], check: float = CHECK) -> None:
        self.stepped: Signal[[float]] = Signal()
        self._now, self._check_every = now, check
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers, self._live = count(), 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen = (0.0, 0.0)  #: time of day and elapsed time at the last check

    @property
    def count(self) -> int:
        """Number of alarms that are set. The timer runs while there is one."""
        return self._live

    def set(self, moment: float, callback: Callable[[], object], *, at_steps: bool = False) -> Alarm:
        """Call ``callback`` at ``moment`` (seconds since the epoch), or soon if it has passed.

        With ``at_steps``, a step of the clock calls it, too.
        """
        self._enter_loop()
        alarm = Alarm(self, callback, at_steps=at_steps)
        if not self._live:
            self._look()
        self._live += 1
        heappush(self._heap, (moment, next(self._numbers), alarm))
        if self._heap[0][2] is alarm or self._timer is None:
            self._arm()
        return alarm

    def note_cancelled(self) -> None:
        """Stop the timer after the last alarm. Called by an alarm that is cancelled."""
        self._live -= 1
        if not self._live:
            self._heap.clear()
            self._disarm()
        elif len(self._heap) > 2 * self._live + SPARE:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapify(self._heap)

    def _enter_loop(self) -> None:
        """Drop the alarms of an event loop that has ended, such as that of an earlier test."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            for _, _, alarm in self._heap:
                alarm.callback = None
            self._loop, self._timer, self._live = loop, None, 0
            self._heap.clear()

    def _look(self) -> float:
        """Return the seconds by which the clock was set since the last look."""
        assert self._loop is not None
        before, self._seen = self._seen, (self._now(), self._loop.time())
        return (self._seen[0] - before[0]) - (self._seen[1] - before[1])

    def _arm(self) -> None:
        assert self._loop is not None
        self._disarm()
        while self._heap[0][2].callback is None:
            heappop(self._heap)
        wait = min(max(0.0, self._heap[0][0] - self._now()), self._check_every)
        self._timer = self._loop.call_later(wait, self._check)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Call what is due, and set the timer again. Called by the timer."""
        self._timer = None
        step = self._look()
        stepped = abs(step) > STEP
        if stepped:
            self.stepped(step)
        for alarm in self._take_due(stepped=stepped):
            callback, alarm.callback = alarm.callback, None
            if callback is not None:  # otherwise an earlier callback has cancelled it
                self._live -= 1
                callback()
        if not self._live:
            self._heap.clear()
        elif self._timer is None:
            self._arm()

    def _take_due(self, *, stepped: bool) -> list[Alarm]:
        due, now = [], self._now()
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        if stepped:
            due += [alarm for _, _, alarm in self._heap if alarm.at_steps and alarm.callback is not None]
        return due
