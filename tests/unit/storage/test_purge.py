from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from engine.model import DestinationSpec, Invocation, Outcome, State
from engine.model.identity import key_at
from engine.protocols import Purged, Settlement
from engine.storage import StorageOptions
from engine.storage.sqlite.database import SQLiteStorage, open_storage
from engine.storage.sqlite.purge import FREE_PAGES, STEP_IDEMPOTENCY_KEYS, STEP_ROWS
from tests.support.waiting import in_own_task

NOW = 1_700_000_000.0
DAY = 86_400.0


def storing(folder: Path) -> AbstractAsyncContextManager[SQLiteStorage]:
    return open_storage(StorageOptions(directory=folder, idempotency_retention=60.0))


async def appended(
    storage: SQLiteStorage, number: int, *, size: int = 10, idempotency_key: str = "", function_id: int = 1
) -> list[Invocation]:
    waiting = []
    for _ in range(number):
        key = storage.identity.next_key(NOW)
        request_id = storage.identity.request_id(key)
        waiting.append(Invocation(key=key, request_id=request_id, function_id=function_id, payload=b"x" * size))
    await asyncio.gather(
        *(storage.journal.append(i, idempotency_key=idempotency_key and f"{idempotency_key}{i.key}") for i in waiting)
    )
    return waiting


async def finished(
    storage: SQLiteStorage, number: int, *, size: int = 10, idempotency_key: str = ""
) -> list[Invocation]:
    return settle(storage, await appended(storage, number, size=size, idempotency_key=idempotency_key))


def settle(
    storage: SQLiteStorage, invocations: list[Invocation], deliver_to: DestinationSpec | None = None
) -> list[Invocation]:
    for i in invocations:
        outcome = Outcome(started_at=NOW, ended_at=NOW)
        settlement = Settlement(invocation=i, state=State.SUCCESS, outcome=outcome, deliver_to=deliver_to)
        storage.journal.settle(settlement)
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


async def held_by(storage: SQLiteStorage, project: str, function_id: int, number: int, **more: Any) -> None:
    """Store finished invocations of a function of a project."""
    row = (function_id, project, f"f{function_id}")
    await _execute(storage, "INSERT INTO function (function_id, project, package, name) VALUES (?, ?, 'p', ?)", row)
    deliver_to = more.pop("deliver_to", None)
    settle(storage, await appended(storage, number, function_id=function_id, **more), deliver_to)


async def _execute(storage: SQLiteStorage, sql: str, row: tuple[Any, ...] = ()) -> list[Any]:
    rows: list[Any] = await storage.writer.call(lambda db: db.execute(sql, row).fetchall())
    return rows


async def kept(storage: SQLiteStorage) -> dict[int, int]:
    return dict(await _execute(storage, "SELECT function_id, count(*) FROM invocation GROUP BY function_id"))


OWED = DestinationSpec(destination="WEBHOOK", param="{}")
ENDED = "SELECT -function_id, rows, size FROM tally WHERE function_id < 0 AND rows > 0"


@pytest.mark.parametrize("caps", [{"rows": 500}, {"size": 5000}], ids=["rows", "size"])
async def test_a_project_with_many_records_loses_its_own(storage: SQLiteStorage, caps: dict[str, int]) -> None:
    await held_by(storage, "small", 1, 100)
    await held_by(storage, "large", 2, 300)
    await held_by(storage, "large", 3, 450)

    gone = await purged_whole(storage, NOW, **caps)

    left = await kept(storage)
    assert (gone, left[1], left[2] + left[3]) == (350, 100, 400)
    assert min(left[2], left[3]) > 0
    assert {f: (rows, size) for f, rows, size in await _execute(storage, ENDED)} == {
        f: (rows, 10 * rows) for f, rows in left.items()
    }


async def test_records_that_cannot_be_dropped_yet_cost_no_other_project_its_own(storage: SQLiteStorage) -> None:
    await held_by(storage, "small", 1, 10)
    await held_by(storage, "large", 2, 2 * STEP_ROWS, deliver_to=OWED)
    await held_by(storage, "large", 3, 20)

    assert await purged_whole(storage, NOW, rows=30) == 20
    assert await purged_whole(storage, NOW, rows=30) == 0
    await _execute(storage, "DELETE FROM owed")

    assert await purged_whole(storage, NOW, rows=30) == 2 * STEP_ROWS - 20
    assert await kept(storage) == {1: 10, 2: 20}


async def test_records_of_deleted_functions_count_for_a_project_of_their_own(storage: SQLiteStorage) -> None:
    await held_by(storage, "small", 1, 10)
    await held_by(storage, "other", 2, 100)
    await _execute(storage, "DELETE FROM function WHERE function_id = 2")

    assert await purged_whole(storage, NOW, rows=40) == 70
    assert await kept(storage) == {1: 10, 2: 30}


async def test_records_of_an_earlier_engine_count_for_their_projects(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await held_by(storage, "small", 1, 10)
        await held_by(storage, "large", 2, 100)
        await _execute(storage, "DELETE FROM tally WHERE function_id < 0")
        await _execute(storage, "PRAGMA user_version = 13")

    async with storing(tmp_path) as storage:
        assert sorted(await _execute(storage, ENDED)) == [(1, 10, 100), (2, 100, 1000)]
        assert await purged_whole(storage, NOW, size=400) == 70
        assert await kept(storage) == {1: 10, 2: 30}


async def test_a_wrong_estimate_ends_with_the_rows_for_which_it_was_made(storage: SQLiteStorage) -> None:
    await held_by(storage, "small", 1, 10)
    await held_by(storage, "large", 2, 100)
    await _execute(storage, "UPDATE tally SET size = 1000000 WHERE function_id = -1")

    assert await purged_whole(storage, NOW, size=900) == 20
    assert await _execute(storage, "SELECT function_id FROM tally WHERE function_id < 0") == [(-2,)]
    await held_by(storage, "small", 3, 10)
    assert await purged_whole(storage, NOW, size=900) == 10
    assert await kept(storage) == {2: 80, 3: 10}


async def test_records_expire_while_those_beyond_a_cap_cannot_be_dropped(storage: SQLiteStorage) -> None:
    await held_by(storage, "small", 1, 10)
    await held_by(storage, "large", 2, STEP_ROWS + 1, deliver_to=OWED)

    assert await purged_whole(storage, NOW + 2 * DAY, rows=30) == 10
    assert await kept(storage) == {2: STEP_ROWS + 1}
