"""Intake from a trigger that generates its events itself: measures only the path from ``accept_batch`` to the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter

import anyio
import uvloop
from anyio.abc import TaskStatus
from msgspec import Struct

from bench.harness import Figure, Options, Round, scratch
from bench.intake.embedded import create, running
from bench.intake.source import TEXT, Source
from engine import Event, Plugin, TriggerContext

BATCHES = (1, 10, 100, 1000)
EVENT = Event(payload=b'{"k": "' + TEXT.encode() + b'"}')


class FeedOptions(Struct, frozen=True, kw_only=True):
    batch: int
    seconds: float


class Feed:
    """Plugin with a trigger that passes generated batches to the engine for ``seconds``.

    Afterwards ``rate`` is set to the events per second.
    """

    def __init__(self, rate: asyncio.Future[float]) -> None:
        self._rate = rate

    def trigger(self, options: FeedOptions) -> FeedTrigger:
        return FeedTrigger(options, self._rate)


class FeedTrigger:
    def __init__(self, options: FeedOptions, rate: asyncio.Future[float]) -> None:
        self._options, self._rate = options, rate

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        events, done, began = [EVENT] * self._options.batch, 0, perf_counter()
        while (passed := perf_counter() - began) < self._options.seconds:
            done += len(await context.accept_batch(events, {"position": b"%d" % done}))
        self._rate.set_result(done / passed)
        await anyio.sleep_forever()


async def _measure(directory: Path, batch: int, seconds: float) -> float:
    rate: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    feed = Plugin(kinds=("FEED",), options=FeedOptions, trigger=Feed(rate).trigger)
    async with running(directory, [feed]) as engine:
        await create(engine, "FEED", {"batch": batch, "seconds": seconds})
        return await rate


def measure(options: Options) -> Round:
    figures: Round = {}
    for batch in BATCHES:
        with scratch(options) as directory:
            figures[f"pull {batch}"] = uvloop.run(_measure(directory, batch, options.seconds))
    return figures


SOURCE = Source(
    description="generated events, in batches",
    figures=tuple(Figure(name=f"pull {batch}", unit="events/s") for batch in BATCHES),
    measure=measure,
)
