from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from engine.model import Invocation, Outcome, State
from engine.model.identity import accepted_at, key_at
from engine.protocols import Purged, Settlement
from engine.storage.options import StorageOptions
from engine.storage.sqlite import open_sqlite
from engine.storage.sqlite.database import SQLiteStorage
from engine.storage.sqlite.purge import FREE_PAGES, STEP_IDEMPOTENCY_KEYS, STEP_ROWS

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


async def test_what_is_too_old_goes_and_the_rest_tells_when_it_will(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        [young] = await finished(storage, 1)

        early = await purge(storage, NOW + DAY - 1)
        late = await purge(storage, NOW + DAY + 1)

        assert (early.request_ids, early.next_due) == ((), accepted_at(young.key) + DAY)
        assert late.request_ids == (young.request_id,)
        assert await storage.records.get(young.key) is None


async def test_the_caps_drop_the_oldest_first(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        ended = await finished(storage, 10)

        gone = await purged_whole(storage, NOW, rows=4)

        assert gone == 6
        assert [await storage.records.get(i.key) is None for i in ended] == [True] * 6 + [False] * 4


async def test_what_waits_stays_however_old(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        key = storage.identity.next_key(NOW)
        waits = Invocation(key=key, request_id=storage.identity.request_id(key), function_id=1, payload=b"{}")
        await storage.journal.append(waits)

        assert await purged_whole(storage, NOW + 100 * DAY) == 0
        assert await storage.records.get(key) is not None


async def test_what_waits_in_front_is_not_gone_through_again_for_each_that_is_too_many(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await appended(storage, 3 * STEP_ROWS)
        await finished(storage, 10)
        assert await purged_whole(storage, NOW, rows=4) == 6
        await finished(storage, 2)

        step = await purge(storage, NOW, rows=4)

        assert len(step.request_ids) == 2


async def test_what_has_ended_in_front_meanwhile_goes_too(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        waiting = await appended(storage, 1)
        await finished(storage, 2 * STEP_ROWS)
        assert await purged_whole(storage, NOW, rows=STEP_ROWS) == STEP_ROWS
        settle(storage, waiting)

        assert await purged_whole(storage, NOW, rows=1) == STEP_ROWS
        assert await purged_whole(storage, NOW, rows=0) == 1


async def test_a_step_is_bounded_in_bytes_and_writes_little(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await finished(storage, 150, size=200_000)
        log = tmp_path / "journal.db-wal"
        await storage.writer.call(lambda db: None)
        before = log.stat().st_size

        step = await purge(storage, NOW + 2 * DAY)

        assert 0 < len(step.request_ids) < 100
        assert step.more
        assert log.stat().st_size - before < 4 << 20


async def test_many_rows_after_a_wrong_clock_go_in_steps_and_are_looked_at_rarely(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        storage.identity.pass_by(key_at(NOW + 100 * 365 * DAY))
        ended = await finished(storage, 2 * STEP_ROWS + 50)
        assert await purged_whole(storage, NOW + 10) == 0
        again = await purge(storage, NOW + 11)
        assert not again.more, "the rows are scanned again at once"
        assert again.next_due == NOW + DAY

        assert await purged_whole(storage, NOW + DAY + 1) == len(ended)


async def test_expired_tokens_are_forgotten_to_the_last(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await finished(storage, STEP_IDEMPOTENCY_KEYS + 10, idempotency_key="t")
        assert len({(await purge(storage, NOW + 59)).next_due}) == 1

        await purged_whole(storage, time.time() + DAY)

        [[left]] = [await storage.writer.call(lambda db: db.execute("SELECT count(*) FROM idempotency").fetchone())]
        assert left == 0


async def test_the_file_gives_its_room_back_to_the_disk(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        await finished(storage, 3 * STEP_ROWS, size=60_000)

        await purged_whole(storage, NOW + 2 * DAY)

        [free] = await storage.writer.call(lambda db: db.execute("PRAGMA freelist_count").fetchone())
        assert free <= FREE_PAGES
        await storage.writer.call(lambda db: None)
        [pages] = await storage.writer.call(lambda db: db.execute("PRAGMA page_count").fetchone())
        assert pages <= FREE_PAGES + 200
