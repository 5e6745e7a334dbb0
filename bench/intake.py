"""How many events a second sources bring into the journal.

Of a pull source, each batch, with its cursor, is one transaction. It makes its events up, so that only the way from
``accept_batch`` to the disk is measured. Gateways, topics and whoever tells of objects are asked over HTTP. What is
accepted is queued, and not executed meanwhile, but for the calls that wait for it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Generator
from pathlib import Path
from time import perf_counter

import anyio
import uvloop
from anyio.abc import TaskStatus
from msgspec import Struct

from bench.harness import Figure, Options, Round, Say, Scenario, scratch
from bench.intake_apig import FIGURES as APIG
from bench.intake_apig import apig
from bench.intake_obs import FIGURES as OBS
from bench.intake_obs import obs
from bench.intake_smn import FIGURES as SMN
from bench.intake_smn import smn
from engine import Event, Plugin, TriggerContext
from engine.app import Running, run_engine
from engine.codestore import NO_CODE, CodeSource
from engine.model import Function
from engine.resources.triggers import TriggerDraft
from engine.settings import load_settings
from engine.telemetry import configure_logging
from engine.urn import parse_urn

BATCHES = (1, 10, 100, 1000)
EVENT = Event(payload=b'{"k": "' + b"x" * 191 + b'"}')
SOURCE = b"def handler(event, context):\n    return event\n"


class FeedOptions(Struct, frozen=True, kw_only=True):
    batch: int
    seconds: float


class Feed:
    """Brings batches until the time is over, then tells how many events that were, and in how many seconds."""

    def __init__(self, told: asyncio.Future[float]) -> None:
        self._told = told

    def trigger(self, options: FeedOptions) -> FeedTrigger:
        return FeedTrigger(options, self._told)


class FeedTrigger:
    def __init__(self, options: FeedOptions, told: asyncio.Future[float]) -> None:
        self._options, self._told = options, told

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        events, done, began = [EVENT] * self._options.batch, 0, perf_counter()
        while (passed := perf_counter() - began) < self._options.seconds:
            done += len(await context.accept_batch(events, {"position": b"%d" % done}))
        self._told.set_result(done / passed)
        await anyio.sleep_forever()


async def _measure(directory: Path, batch: int, seconds: float) -> float:
    told: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    feed = Plugin(kinds=("FEED",), options=FeedOptions, trigger=Feed(told).trigger)
    settings = load_settings(overrides={"storage.data_dir": str(directory / str(batch)), "grace": 0})
    async with run_engine(settings, plugins=[feed]) as engine:
        engine.scheduler.hold("only what comes in is measured")
        await _create(engine, {"batch": batch, "seconds": seconds})
        return await told


async def _create(engine: Running, data: dict[str, float]) -> None:
    function = Function(
        function_id=0,
        project="default",
        package="default",
        name="held",
        runtime="Python3.10",
        handler="index.handler",
        timeout=3,
        memory_size=128,
        code=NO_CODE,
    )
    await engine.catalog.create(function, CodeSource(kind="inline", file=base64.b64encode(SOURCE).decode()))
    urn = parse_urn("held", region=engine.settings.http.region, project="default")
    await engine.resources.triggers.create(urn, TriggerDraft(kind="FEED", data=data))


def rounds(options: Options, say: Say) -> Generator[Round, None, None]:
    configure_logging("console", "error")
    while True:
        found: Round = {}
        for batch in BATCHES:
            say(f"intake: batches of {batch}")
            with scratch(options) as directory:
                found[f"pull {batch}"] = uvloop.run(_measure(Path(directory), batch, options.seconds))
        found |= {**apig(options, say), **obs(options, say), **smn(options, say)}
        yield found


SCENARIO = Scenario(
    name="intake",
    title="events of sources, 200 bytes, from the source to disk",
    figures=(*(Figure(name=f"pull {batch}", unit="events/s") for batch in BATCHES), *APIG, *OBS, *SMN),
    rounds=rounds,
    note="pull: numbers behind the name are events in a batch, one batch at a time; over HTTP: 64 connections",
)
