"""Engine with one trigger of a rig's kind, for the contract suites of trigger sources."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from importlib import import_module
from typing import Any

import anyio
import pytest
from msgspec import Struct

from engine.config.plugin_registry import load_plugins
from engine.resources.bound_trigger import BoundTrigger
from tests.acceptance.engine_process import PROJECT, EngineProcess, rows, urn_of
from tests.contracts import rigs
from tests.contracts.rigs.base import Rig, Target
from tests.support.triggering import House, api_client, house
from tests.support.waiting import until

MODULES = [module.name for module in pkgutil.iter_modules(rigs.__path__) if module.name != "base"]
RIGS: list[type[Rig]] = [import_module(f"{rigs.__name__}.{name}").Rig for name in MODULES]
NOWHERE = Target(url="", trigger_id="", shown={})


def params_of(chosen: Iterable[type[Rig]]) -> list[Any]:
    return [pytest.param(rig, id=rig.__module__.rpartition(".")[2]) for rig in chosen]


def having(**traits: bool) -> pytest.MarkDecorator:
    """Run a test only with the sources that have these traits."""
    chosen = [rig for rig in RIGS if all(getattr(rig, name) is value for name, value in traits.items())]
    return pytest.mark.parametrize("rig", params_of(chosen), indirect=True)


class Scene(Struct, kw_only=True):
    """Engine with one trigger of the rig's kind."""

    rig: Rig
    place: House
    url: str
    trigger: BoundTrigger

    @property
    def target(self) -> Target:
        return Target(
            url=self.url, trigger_id=self.trigger.id, shown=self.trigger.shown, path=self.trigger.path, place=self.place
        )

    async def send(self, *numbers: int) -> list[bool]:
        return [await self.rig.send(self.target, number) for number in numbers]

    async def numbers(self) -> list[int]:
        """Return the numbers of all accepted events, in the order of acceptance."""
        return [number for event in await self.place.events() for number in self.rig.numbers(event)]

    async def has(self, *numbers: int) -> None:
        """Return once exactly these numbers have been accepted."""

        async def have_come() -> bool:
            accepted = await self.numbers()
            assert len(accepted) <= len(numbers), f"{accepted} is more than {numbers}"
            return sorted(accepted) == sorted(numbers)

        await until(have_come)

    async def runs(self) -> None:
        await self.is_in("running")

    async def is_in(self, state: str) -> None:
        await until(lambda: self.place.state(self.trigger).state == state)


@asynccontextmanager
async def scene(rig: Rig, **settings: Any) -> AsyncIterator[Scene]:
    """Run an engine on the rig's folder. The first one creates the trigger, later ones find it."""
    plugins = load_plugins(rig.modules)
    named = {name.replace(".", "__"): value for name, value in rig.settings.items()}
    async with (
        house(rig.folder / "data", plugins, clock=rig.clock, **{**named, **settings}) as place,
        api_client(place) as client,
    ):
        there = list(place.engine.resources.triggers.all())
        trigger = there[0] if there else await place.create(rig.kind, **rig.options())
        if not trigger.stored.active:
            trigger = await place.update(trigger, status="ACTIVE")
        made = Scene(rig=rig, place=place, url=str(client.base_url).rstrip("/"), trigger=trigger)
        await made.runs()
        yield made


class ProcessScene(Struct, kw_only=True):
    """Engine in a process of its own, with one trigger of the rig's kind, whose function does nothing."""

    rig: Rig
    engine: EngineProcess
    made: Any  #: the trigger as the API shows it
    path: str

    @property
    def target(self) -> Target:
        url, made = f"http://127.0.0.1:{self.engine.port}", self.made
        return Target(url=url, trigger_id=made["trigger_id"], shown=made["event_data"], path=made.get("path", ""))

    async def send(self, number: int) -> bool:
        return await self.rig.send(self.target, number)

    def state(self) -> Any:
        return self.engine.ask("GET", self.path).json

    def numbers(self) -> list[int]:
        payloads = rows(self.rig.folder / "data", "SELECT body FROM payload ORDER BY key")
        return [number for [payload] in payloads for number in self.rig.numbers(json.loads(payload))]


@asynccontextmanager
async def process_scene(rig: Rig) -> AsyncIterator[ProcessScene]:
    settings = {f"FUNCTIOND_{name.replace('.', '__').upper()}": str(value) for name, value in rig.settings.items()}
    rig.project = PROJECT
    with closing(EngineProcess(rig.folder / "data", FUNCTIOND_PLUGIN=",".join(rig.modules), **settings)) as engine:
        engine.start()
        engine.create("hello", "def handler(event, context):\n    return None\n")
        path = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"
        body = {"trigger_type_code": rig.kind, "trigger_status": "ACTIVE", "event_data": rig.options()}
        made = engine.ask("POST", path, body).json
        opened = ProcessScene(rig=rig, engine=engine, made=made, path=f"{path}/{rig.kind}/{made['trigger_id']}/state")
        await until(lambda: opened.state()["state"] == "running")
        with anyio.fail_after(100):
            yield opened
