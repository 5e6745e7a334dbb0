"""Simulated time that passes as fast as timers sleep, with a clock that can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.model.alarms import CHECK
from plugins.timer import source
from tests.doubles import ManualClock


class _PassingClock(ManualClock):
    """Clock whose sleeps let time pass, and that is read again at least every ``CHECK`` seconds."""

    def __init__(self, now: float, time: PassingTime) -> None:
        super().__init__(now)
        self._time = time

    def wake_toward(self, moment: float, callback: Callable[[], object]) -> Any:
        sleep = asyncio.ensure_future(self.sleep_toward(moment))
        sleep.add_done_callback(lambda ended: None if ended.cancelled() else callback())
        return sleep

    async def sleep_toward(self, moment: float) -> None:
        await self._time.sleep(min(max(0.0, moment - self.now()), CHECK))


class PassingTime:
    """Elapsed time of one timer; outlives engines. ``clock`` shows it plus the clock error at that time."""

    def __init__(self, begin: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.elapsed = _PassingClock(begin, self), 0.0
        self.errors = {0.0: 0.0}  #: seconds that the clock is ahead, by the elapsed second at which the error starts
        self._begin, self._end = begin, 0.0
        self._reached, self._extended = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(source, "elapsed", lambda: self.elapsed)

    async def run_until(self, end: float) -> None:
        """Return when the timer sleeps beyond this elapsed second."""
        self._end = end
        self._reached.clear()
        self._extended.set()
        await self._reached.wait()

    def pass_until(self, moment: float) -> None:
        """Advance time to ``moment``, whether the timer sleeps or not."""
        self.elapsed, self._end = moment, max(moment, self._end)
        error = next(ahead for begin, ahead in reversed(self.errors.items()) if begin <= moment)
        self.clock.advance(self._begin + moment + error - self.clock.now())

    async def sleep(self, seconds: float) -> None:
        wake = self.elapsed + seconds
        while wake > self._end:
            self.pass_until(self._end)
            self._extended.clear()
            self._reached.set()
            await self._extended.wait()
        self.pass_until(wake)
