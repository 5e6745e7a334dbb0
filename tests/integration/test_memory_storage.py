"""Whole engine on a storage in memory: nothing above the storage needs a particular one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.app import lifecycle
from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.errors import MembershipLost
from engine.model import State
from engine.resources.triggers import TriggerDraft
from plugins.function import plugin as function_plugin
from plugins.timer import plugin as timer_plugin
from tests.doubles import MemoryStorage
from tests.support.executing import function
from tests.support.inline_engine import PROJECT, SETTINGS, accept, run_inline, urn_of
from tests.support.triggering import settings_of, until

NAMES = ("hello", "sink")


@pytest.fixture
async def memory() -> MemoryStorage:
    """Return a storage with two functions."""
    storage = MemoryStorage()
    for name in NAMES:
        number = await storage.catalog.new_function_id()
        await storage.catalog.put_functions([function(name, function_id=number, project=PROJECT)])
    return storage


Run = Callable[[MemoryStorage], Any]


@pytest.fixture
def gate() -> asyncio.Event:
    """Return an event, set at first, for which runs of the second function wait."""
    gate = asyncio.Event()
    gate.set()
    return gate


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: asyncio.Event) -> Run:
    """Return a function that runs an engine on a storage in memory. Its instances are handlers in this process."""
    run_inline(monkeypatch, {"sink": lambda event, context: gate.wait()})
    settings = settings_of(tmp_path, **SETTINGS)

    @asynccontextmanager
    async def on(memory: MemoryStorage) -> AsyncIterator[EngineParts]:
        monkeypatch.setattr(lifecycle, "open_storage", lambda directory, **options: memory.opened())
        async with run_engine(settings, plugins=[function_plugin, timer_plugin]) as engine:
            with anyio.fail_after(60):
                yield engine

    return on


async def test_a_source_that_another_engine_owns_does_not_run(memory: MemoryStorage, run: Run) -> None:
    draft = TriggerDraft(kind="TIMER", data={"name": "daily", "schedule_type": "Rate", "schedule": "1d"})
    async with run(memory) as engine:
        own, other = [
            (await engine.resources.triggers.create(urn_of("sink"), draft)).id,
            (await engine.resources.triggers.create(urn_of("hello"), draft)).id,
        ]

    memory.cluster.others.add(other)
    async with run(memory) as engine:
        states = [engine.sources.state(trigger_id) for trigger_id in (own, other)]

    assert [state is None for state in states] == [False, True]


async def test_an_engine_that_lost_its_membership_ends_and_the_next_runs_what_it_ran(
    memory: MemoryStorage, run: Run, gate: asyncio.Event
) -> None:
    gate.clear()
    keys: list[int] = []

    async def use() -> None:
        async with run(memory) as engine:
            keys.append(await accept(engine, "sink"))
            await until(lambda: memory.rows[keys[0]].begun)
            memory.lose_membership()
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as ended:
        await use()
    gate.set()
    async with run(memory) as engine:
        await engine.dispatcher.ended(keys[0], 30)

    assert ended.group_contains(MembershipLost)
    row = memory.rows[keys[0]]
    assert (row.state, row.invocation.crash_count) == (State.SUCCESS, 1)


async def test_a_request_that_ends_after_the_services_may_change_a_function(memory: MemoryStorage, run: Run) -> None:
    """The listener gives requests time to finish when the program that runs the engine is cancelled."""
    with anyio.CancelScope() as program:
        async with run(memory) as engine:
            program.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                await engine.catalog.delete(urn_of("sink"))

    assert [known.name for known in engine.catalog.all()] == ["hello"]
