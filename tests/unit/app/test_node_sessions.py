"""Stored sessions of nodes, for whose end the next engine waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.app.health import EngineHealth
from engine.app.lifecycle import run_engine
from engine.app.node_sessions import REASON, STORE, Sessions
from engine.errors import NotStored
from engine.protocols import Storage
from tests.doubles import MemoryStorage
from tests.support.storages import KINDS
from tests.support.triggering import settings_of

LONG = 1000.0  #: seconds of a lease that is not over in a test


class Starting:
    """Start of an engine with this storage."""

    def __init__(self, storage: Storage) -> None:
        self.held: set[str] = set()
        self.sessions = Sessions(storage.store(STORE), self.held.add, self.held.discard)


async def started(storage: Storage, lease: float = LONG) -> Starting:
    engine = Starting(storage)
    await engine.sessions.load(lease)
    return engine


@pytest.mark.parametrize("kind", KINDS)
async def test_work_is_held_until_each_session_of_the_previous_engine_has_ended(kind: str, tmp_path: Path) -> None:
    async with KINDS[kind](tmp_path)() as storage:
        first = await started(storage)
        assert not first.held
        for session in ("a", "b", "c"):
            await first.sessions.add(session)
        await first.sessions.remove("b")

        second = await started(storage)
        running = asyncio.ensure_future(second.sessions.run())
        await second.sessions.add("d")
        second.sessions.ended("a")
        await asyncio.sleep(0)
        assert second.held == {REASON}
        second.sessions.ended("c")
        await running
        assert not second.held

        third = await started(storage)
        third.sessions.ended("d")
        await third.sessions.run()
        assert not third.held
        assert not (await started(storage)).held


async def test_work_is_resumed_when_the_leases_of_the_previous_engine_are_over() -> None:
    storage = MemoryStorage()
    await (await started(storage, lease=0.01)).sessions.add("a")

    engine = await started(storage)
    assert engine.held
    await asyncio.wait_for(engine.sessions.run(), 30)

    assert not engine.held


async def test_a_session_that_cannot_be_stored_is_refused() -> None:
    storage = MemoryStorage()
    engine = await started(storage)
    storage.fail()

    with pytest.raises(NotStored):
        await engine.sessions.add("a")
    await engine.sessions.remove("a")


async def test_stored_sessions_hold_work_of_an_engine_whose_nodes_were_switched_off(tmp_path: Path) -> None:
    async with KINDS["sqlite"](tmp_path)() as storage:
        await (await started(storage)).sessions.add("a")

    async with run_engine(settings_of(tmp_path)) as engine:
        assert engine.pool.nodes is None
        assert engine.scheduler.held == {REASON}
        assert REASON in EngineHealth(engine).about(None)["held"]
