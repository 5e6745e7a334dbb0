from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from engine.model import Invocation, Outcome, State
from engine.model.identity import key_at
from engine.protocols import Purged, Settlement
from engine.storage import StorageOptions
from engine.storage.sqlite.database import SQLiteStorage, open_sqlite
from engine.storage.sqlite.purge import FREE_PAGES, STEP_IDEMPOTENCY_KEYS, STEP_ROWS
from tests.support.waiting import in_own_task

NOW = 1_700_000_000.0
DAY = 86_400.0


def storing(folder: Path) -> AbstractAsyncContextManager[SQLiteStorage]:
    return open_sqlite(StorageOptions(directory=folder, idempotency_retention=60.0))


async def appended(
    storage: SQLiteStorage, number: int, *, size: int = 10, idempotency_key: str = ""
) -> list[Invocation]:
    waiting = []
    for _ in range(number):
        key = storage.identity.next_key(NOW)
        request_id = storage.identity.request_id(key)
        waiting.append(Invocation(key=key, request_id=request_id, function_id=1, payload=b"x" * size))
    await asyncio.gather(
        *(storage.journal.append(i, idempotency_key=idempotency_key and f"{idempotency_key}{i.key}") for i in waiting)
    )
    return waiting


async def finished(
    storage: SQLiteStorage, number: int, *, size: int = 10, idempotency_key: str = ""
) -> list[Invocation]:
    return settle(storage, await appended(storage, number, size=size, idempotency_key=idempotency_key))


def settle(storage: SQLiteStorage, invocations: list[Invocation]) -> list[Invocation]:
    for i in invocations:
        outcome = Outcome(started_at=NOW, ended_at=NOW)
        storage.journal.settle(Settlement(invocation=i, state=State.SUCCESS, outcome=outcome))
    return invocations


async def purge(storage: SQLiteStorage, now: float, *, rows: int = 1_000_000, size: int = 1 << 40) -> Purged:
    return await storage.records.purge(now, age=DAY, rows=rows, size=size)


async def purged_whole(storage: SQLiteStorage, now: float, **caps: int) -> int:
    gone = 0
    while True:
        step = await purge(storage, now, **caps)
        gone += len(step.request_ids)
        if not step.more:
            return gone


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SQLiteStorage]:
    async with in_own_task(storing(tmp_path)) as storage:
        yield storage


async def test_waiting_rows_in_front_are_not_read_again_for_each_excess_row(storage: SQLiteStorage) -> None:
    await appended(storage, 3 * STEP_ROWS)
    await finished(storage, 10)
    assert await purged_whole(storage, NOW, rows=4) == 6
    await finished(storage, 2)

    step = await purge(storage, NOW, rows=4)

    assert len(step.request_ids) == 2


async def test_rows_in_front_that_ended_meanwhile_are_purged(storage: SQLiteStorage) -> None:
    waiting = await appended(storage, 1)
    await finished(storage, 2 * STEP_ROWS)
    assert await purged_whole(storage, NOW, rows=STEP_ROWS) == STEP_ROWS
    settle(storage, waiting)

    assert await purged_whole(storage, NOW, rows=1) == STEP_ROWS
    assert await purged_whole(storage, NOW, rows=0) == 1


async def test_a_step_is_bounded_in_bytes_and_writes_little(storage: SQLiteStorage, tmp_path: Path) -> None:
    await finished(storage, 150, size=200_000)
    log = tmp_path / "journal.db-wal"
    await storage.writer.call(lambda db: None)
    before = log.stat().st_size

    step = await purge(storage, NOW + 2 * DAY)

    assert 0 < len(step.request_ids) < 100
    assert step.more
    assert log.stat().st_size - before < 4 << 20


async def test_many_rows_after_a_wrong_clock_go_in_steps_and_are_looked_at_rarely(storage: SQLiteStorage) -> None:
    storage.identity.pass_by(key_at(NOW + 100 * 365 * DAY))
    ended = await finished(storage, 2 * STEP_ROWS + 50)
    assert await purged_whole(storage, NOW + 10) == 0
    again = await purge(storage, NOW + 11)
    assert not again.more, "the rows are scanned again at once"
    assert again.next_due == NOW + DAY

    assert await purged_whole(storage, NOW + DAY + 1) == len(ended)


async def test_all_expired_idempotency_keys_are_removed(storage: SQLiteStorage) -> None:
    await finished(storage, STEP_IDEMPOTENCY_KEYS + 10, idempotency_key="t")
    assert len({(await purge(storage, NOW + 59)).next_due}) == 1

    await purged_whole(storage, time.time() + DAY)

    [[left]] = [await storage.writer.call(lambda db: db.execute("SELECT count(*) FROM idempotency").fetchone())]
    assert left == 0


async def test_the_file_gives_its_room_back_to_the_disk(storage: SQLiteStorage) -> None:
    await finished(storage, 3 * STEP_ROWS, size=60_000)

    await purged_whole(storage, NOW + 2 * DAY)

    [free] = await storage.writer.call(lambda db: db.execute("PRAGMA freelist_count").fetchone())
    assert free <= FREE_PAGES
    await storage.writer.call(lambda db: None)
    [pages] = await storage.writer.call(lambda db: db.execute("PRAGMA page_count").fetchone())
    assert pages <= FREE_PAGES + 200
