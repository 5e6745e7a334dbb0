"""Engine in the test process with trigger sources and a clock that its timers follow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import httpx
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.app import lifecycle
from engine.app.api_wiring import build_apps
from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.app.signals import connect
from engine.asgi.listener import listen
from engine.code.store import CodeSource
from engine.config.settings import Settings, load_settings
from engine.http.auth import Authenticator
from engine.model import Function, State
from engine.model.clock import Clock
from engine.model.urn import FunctionUrn, parse_urn
from engine.protocols import Plugin, Selection, TriggerContext
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import TriggerDraft
from engine.triggers.sources import SourceState
from tests.support.builders import a_function
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded
from tests.support.waiting import until as until

URN = f"urn:fss:{REGION}:{PROJECT}:function:default:hello:latest"
#: No reserved disk space, and short retry delays.
QUICK = {
    "storage.free_space": 0,
    "storage.ballast": 0,
    "retry.base": 0.01,
    "retry.jitter": 0.0,
    "grace": 0.0,
    "executor.isolation": "process",
}
HELD = "tests count what waits"


class House(Struct, kw_only=True):
    """Running engine with the function ``hello``. Nothing is executed, so accepted invocations can be counted."""

    engine: EngineParts

    @property
    def urn(self) -> FunctionUrn:
        return parse_urn(URN, region=REGION, project=PROJECT)

    async def create(self, kind: str, **data: Any) -> BoundTrigger:
        return await self.engine.resources.triggers.create(self.urn, TriggerDraft(kind=kind, data=data))

    async def update(self, trigger: BoundTrigger, *, status: str = "", **data: Any) -> BoundTrigger:
        parts = [data] if data else []
        return await self.engine.resources.triggers.update(self.urn, trigger.kind, trigger.id, parts, status)

    async def delete(self, trigger: BoundTrigger) -> None:
        await self.engine.resources.triggers.delete(self.urn, trigger.kind, trigger.id)

    def state(self, trigger: BoundTrigger) -> SourceState:
        state = self.engine.sources.state(trigger.id)
        assert state is not None
        return state

    async def keys(self) -> list[int]:
        """Return the keys of all accepted invocations, in the order of acceptance."""
        selection = Selection(function_id=1, states=frozenset(State), limit=100_000)
        records, _ = await self.engine.storage.records.list(selection)
        return sorted(record.key for record in records)

    async def events(self) -> list[Any]:
        """Return the payloads of all accepted invocations, in the order of acceptance."""
        whole = [await self.engine.storage.records.get(key) for key in await self.keys()]
        return [json.loads(record.payload) for record in whole if record]

    async def traces(self) -> list[str]:
        """Return the trace contexts of all accepted invocations, in the order of acceptance."""
        whole = [await self.engine.storage.records.get(key) for key in await self.keys()]
        return [record.trace for record in whole if record]

    async def cursors(self, trigger: BoundTrigger) -> dict[str, bytes]:
        return dict(await self.engine.storage.cursors.read(trigger.id))


@asynccontextmanager
async def house(
    folder: Path, plugins: Iterable[Plugin] = (), *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[House]:
    """Run an engine on ``folder``; a second call restarts it. Setting names use two underscores for a dot."""
    with patch.object(lifecycle, "connect", _connect_held):
        async with run_engine(settings_of(folder, **settings), plugins=plugins, clock=clock) as engine:
            if not engine.catalog.list(PROJECT):
                await engine.catalog.create(_hello(), CodeSource(kind="inline", file=encoded(SOURCE)))
            with anyio.fail_after(200):
                yield House(engine=engine)


def _connect_held(engine: EngineParts) -> None:
    """Connect the signals of an engine, and start nothing, not even the work of an earlier run."""
    connect(engine)
    engine.scheduler.hold(HELD)


def settings_of(folder: Path, **settings: Any) -> Settings:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return load_settings(overrides={**QUICK, "storage.data_dir": str(folder), **named})


def _hello() -> Function:
    return a_function(function_id=0, project=PROJECT, timeout=60)


class NeverStarts:
    """Source that never finishes its start."""

    def __init__(self, options: object) -> None: ...

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        await anyio.sleep_forever()


async def messages(place: House, count: int) -> list[str]:
    """Wait for ``count`` accepted broker messages and return all of them."""
    while True:
        texts = [m for event in await place.events() for record in event["records"] for m in record["messages"]]
        if len(texts) >= count:
            return texts
        await anyio.sleep(0.01)


@asynccontextmanager
async def api_client(place: House, *, authenticator: Authenticator | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API with the plugins' mounts; yield an HTTP client of it. ``authenticator`` replaces the engine's."""
    engine = copy(place.engine)
    engine.authenticator = authenticator or engine.authenticator
    app = build_apps(engine)[0]
    async with (
        listen(app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False, timeout=60) as client,
    ):
        yield client
