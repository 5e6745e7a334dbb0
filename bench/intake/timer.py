"""Intake from a timer that fires every second.

All due times that were missed while the engine was stopped are caught up at once.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import anyio
import uvloop

from bench.harness import Figure, Options, Round, scratch
from bench.intake.embedded import create, running
from bench.intake.source import TEXT, Source
from plugins.timer import plugin
from tests.doubles import ManualClock

DUE = 20_000


async def _measure(directory: Path, due: int) -> float:
    clock = ManualClock()
    data = {"name": "t", "schedule_type": "Cron", "schedule": "* * * * * ?", "user_event": TEXT}
    async with running(directory, [plugin], clock=clock) as engine:
        await create(engine, "TIMER", data)
    clock.advance(due)
    async with running(directory, [plugin], clock=clock, plugins__timer__catch_up="all") as engine:
        began = perf_counter()
        while engine.sources.statistics().accepted < due:  # noqa: ASYNC110  (a figure offers no event)
            await anyio.sleep(0.005)
        return due / (perf_counter() - began)


def measure(options: Options) -> Round:
    with scratch(options) as directory:
        return {"timer": uvloop.run(_measure(directory, options.scaled(DUE)))}


SOURCE = Source(
    description="a timer that catches up",
    figures=(Figure(name="timer", unit="events/s"),),
    measure=measure,
)
