from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.model import Invocation, State
from engine.pipeline import dispatcher
from engine.pipeline.dispatcher import Begins
from tests.doubles import MemoryStorage

NOW = 1_700_000_000.0


async def stored(storage: MemoryStorage, **fields: Any) -> Invocation:
    key = storage.identity.next_key(NOW)
    invocation = Invocation(key=key, request_id=storage.identity.request_id(key), function_id=1, **fields)
    await storage.journal.append(invocation)
    return invocation


async def test_a_handler_does_not_wait_for_its_record() -> None:
    storage = MemoryStorage()
    invocation = await stored(storage)

    assert Begins(storage.journal, first_attempts=0).of(invocation, NOW)() is None
    assert (storage.rows[invocation.key].state, storage.rows[invocation.key].begun) == (State.RUNNING, True)


async def test_the_first_attempts_after_a_start_wait_for_their_records() -> None:
    storage = MemoryStorage()
    recorded = Begins(storage.journal, first_attempts=2)
    invocation = await stored(storage)
    for _ in range(2):
        await asyncio.wait_for(_awaited(recorded, invocation), 60)

    assert recorded.of(invocation, NOW)() is None


@pytest.mark.parametrize("crashes", [{"crash_count": 1}, {"start_crashes": 1}])
async def test_an_invocation_that_met_a_crash_waits_for_its_record(crashes: dict[str, int]) -> None:
    storage = MemoryStorage()
    invocation = await stored(storage, **crashes)
    storage.fail()
    waiting = asyncio.ensure_future(_awaited(Begins(storage.journal, first_attempts=0), invocation))
    for _ in range(10):
        await asyncio.sleep(0)

    assert not waiting.done()
    storage.heal()
    await asyncio.wait_for(waiting, 60)
    assert storage.rows[invocation.key].begun


async def test_a_handler_begins_although_the_disk_stays_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BEGIN_TIMEOUT", 0.01)
    storage = MemoryStorage()
    invocation = await stored(storage)
    storage.fail()
    await asyncio.wait_for(_awaited(Begins(storage.journal), invocation), 60)
    storage.heal()

    assert storage.rows[invocation.key].begun


async def _awaited(recorded: Begins, invocation: Invocation) -> None:
    stored = recorded.of(invocation, NOW)()
    assert stored is not None
    await stored
