"""Simulated time that passes as fast as timers sleep, with a clock that can be wrong."""

from __future__ import annotations

import asyncio
from importlib import import_module
from types import SimpleNamespace

import pytest

from engine.testing import ManualClock
from engine.triggers import plugin_contexts as plugin_parts


class PassingTime:
    """Elapsed time of one timer; outlives engines. ``clock`` shows it plus the clock error at that time."""

    def __init__(self, begin: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.elapsed = ManualClock(begin), 0.0
        self.errors = {0.0: 0.0}  #: seconds that the clock is ahead, by the elapsed second at which the error starts
        self._begin, self._end = begin, 0.0
        self._reached, self._extended = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(plugin_parts, "anyio", SimpleNamespace(sleep=self._sleep))
        source = import_module(
            "plugins.timer.source"
        )  # ``import plugins.timer.source`` would bind the package's function of that name
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

    async def _sleep(self, seconds: float) -> None:
        wake = self.elapsed + seconds
        while wake > self._end:
            self.pass_until(self._end)
            self._extended.clear()
            self._reached.set()
            await self._extended.wait()
        self.pass_until(wake)
