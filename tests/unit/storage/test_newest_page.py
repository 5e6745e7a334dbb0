"""Damage of the newest page of a table, to which new rows are appended."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import DataDirectoryUnusable, NotStored
from engine.model import DestinationSpec, State
from engine.protocols import Settlement
from engine.storage.sqlite.checks import find_problems
from engine.storage.sqlite.older_tables import set_aside
from tests.contracts.storage import NOW, cancelled, made, settled, success
from tests.support.damage import ROWS, kept, ranges, ready, rows_of, storing


@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while running"])
async def test_new_events_are_stored_behind_a_damaged_page_of_events(tmp_path: Path, running: bool) -> None:
    data = await kept(tmp_path)
    file, page = data.file, data.leaves("payload")[-1]
    if not running:
        file.smash(page)

    async with storing(tmp_path) as storage:
        if running:
            file.smash(page)
        events = [made(storage, 1, payload=b"%d" % number, at=NOW, rank=NOW + number) for number in range(20)]
        appends = [
            storage.journal.append(each, idempotency_key=f"{number}" * (number % 2))
            for number, each in enumerate(events)
        ]
        assert await asyncio.gather(*appends) == [each.request_id for each in events]
        assert await storage.journal.append(events[1], idempotency_key="1") == events[1].request_id

        assert storage.statistics().failure == ""
        assert ranges(storage) == {"payload": (page.keys[0], page.keys[-1])}
        expected = [*data.keys(1, page.keys), *(each.key for each in events)]
        assert await ready(storage, 1) == expected
        assert await ready(storage, 2) == data.keys(2, page.keys)
    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == expected
        for each in (data.invocations[0], events[3]):
            record = await storage.records.get(each.key)
            assert record is not None
            assert (record.payload, record.damaged) == (each.payload, frozenset())
        lost = await storage.records.get(page.keys[0])
        assert lost is not None
        assert lost.damaged == {"payload"}


async def test_events_of_an_older_table_are_delayed_run_and_recovered(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    lost = data.smash("payload", -1)
    async with storing(tmp_path) as storage:
        old, new = data.invocations[0], made(storage, 1, at=NOW, rank=NOW + 1)
        await storage.journal.append(new)
        for each in (old, new):
            storage.journal.start(each, NOW)
    async with storing(tmp_path) as storage:
        assert (await storage.journal.recover()).revived == 2
        page = await storage.window.ready(1, (float("-inf"), 0), ROWS, 1 << 20)
        assert {one.key for one in page.invocations} == {new.key, *data.keys(1, lost)}
        assert {one.key: one.payload for one in page.invocations}[old.key] == old.payload
        assert {one.damage for one in page.invocations} == {""}
        await settled(storage, old, success(old))


async def test_a_second_damaged_newest_page_of_events_is_set_aside_too(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    lost = data.smash("payload", -1)
    async with storing(tmp_path) as storage:
        more = [made(storage, 1, payload=b"%0200d" % 8, at=NOW, rank=NOW + 1) for _ in range(ROWS)]
        await asyncio.gather(*(storage.journal.append(each) for each in more))
    lost += data.smash("payload", -1)

    async with storing(tmp_path) as storage:
        last = made(storage, 1, at=NOW, rank=NOW + 2)
        await storage.journal.append(last)
        expected = [*data.keys(1, lost), *(each.key for each in more if each.key not in lost), last.key]
        assert await ready(storage, 1, 2 * ROWS) == expected


@pytest.mark.parametrize("leaf", [0, -1], ids=["oldest", "newest"])
async def test_a_damaged_page_of_newer_events_does_not_hide_older_ones(tmp_path: Path, leaf: int) -> None:
    data = await kept(tmp_path)
    lost = data.smash("payload", -1)
    async with storing(tmp_path) as storage:
        more = [made(storage, 1, payload=b"%0200d" % 8, at=NOW, rank=NOW + 1) for _ in range(4 if leaf else ROWS)]
        await asyncio.gather(*(storage.journal.append(each) for each in more))
    lost += data.smash("payload", leaf)

    async with storing(tmp_path) as storage:
        last = made(storage, 1, at=NOW, rank=NOW + 2)
        await storage.journal.append(last)
        expected = [*data.keys(1, lost), *(each.key for each in more if each.key not in lost), last.key]
        assert await ready(storage, 1, 2 * ROWS) == expected
        assert storage.statistics().failure == ""
        oldest = await storage.records.get(data.invocations[0].key)
        assert oldest is not None
        assert oldest.payload == data.invocations[0].payload


async def test_verify_finds_the_events_of_all_tables(tmp_path: Path) -> None:
    data = await kept(tmp_path, 20)
    for _ in range(2):
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as database:
            set_aside(database, "payload")
        async with storing(tmp_path) as storage:
            await storage.journal.append(made(storage, 1, at=NOW))
    assert list(find_problems(tmp_path)) == []

    first = data.invocations[3].key
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("UPDATE payload_1 SET body = x'7b' WHERE key = ?", (first,))
    found = [problem.problem for problem in find_problems(tmp_path)]
    assert found == [f"the payload of the invocation {first} differs from its checksum"]


async def test_pruning_drops_events_of_all_tables(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    lost = data.smash("payload", -1)
    async with storing(tmp_path) as storage:
        new = [made(storage, 1, at=NOW, rank=NOW + 1) for _ in range(10)]
        await asyncio.gather(*(storage.journal.append(each) for each in new))
        ended = [*new, *(each for each in data.invocations if each.key not in lost)]
        for each in ended:
            storage.journal.settle(Settlement(invocation=each, state=State.SUCCESS, outcome=success(each)))
        for _ in range(20):
            step = await storage.records.purge(NOW + 10_000_000, age=1.0, rows=1_000_000, size=1 << 40)
            if not step.more:
                break
        assert not step.more
        assert storage.statistics().failure == ""
    assert rows_of(tmp_path, "SELECT count(*) FROM payload") == [(0,)]
    left = {key for [key] in rows_of(tmp_path, "SELECT key FROM invocation")}
    assert left >= set(lost)
    assert len(left) <= 3 * len(lost)


async def test_the_start_is_refused_if_the_newest_page_of_invocations_is_damaged(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    data.smash("invocation", -1)

    with pytest.raises(DataDirectoryUnusable, match=r"newest page of the table invocation.*functiond restore"):
        async with storing(tmp_path):
            pass


async def test_a_running_engine_refuses_new_events_if_the_newest_page_of_invocations_is_damaged(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    file, page = data.file, data.leaves("invocation")[-1]

    async with storing(tmp_path) as storage:
        file.smash(page)
        await storage.writer.call(lambda db: db.execute("PRAGMA shrink_memory").fetchall())  # SQLite has read it
        for idempotency_key in ("", "a"):
            with pytest.raises(NotStored, match=r"damaged.*healthz"):
                await storage.journal.append(made(storage, 1, at=NOW), idempotency_key=idempotency_key)
        assert storage.statistics().failure == ""
        assert "invocation" in ranges(storage)
        assert await ready(storage, 1) == data.keys(1, page.keys)
        assert await storage.journal.cancel(data.invocations[0].key, cancelled()) is not None


@pytest.mark.parametrize("number", [10, ROWS], ids=["one page", "several pages"])
async def test_invocations_end_though_the_newest_page_of_deliveries_is_damaged(tmp_path: Path, number: int) -> None:
    data, sink = await kept(tmp_path, 2 * number), DestinationSpec(destination="TEST", param="{}")
    first, second = data.invocations[:number], data.invocations[number:]
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in first))
    lost = data.smash("owed", -1)

    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in second))
        assert storage.statistics().failure == ""
        assert {one.name for one in storage.statistics().damage} == {"owed"}
        assert sum(one.to_key - one.from_key + 1 for one in storage.statistics().damage) == len(lost)
    assert rows_of(tmp_path, "SELECT DISTINCT state FROM invocation") == [(3,)]
    async with storing(tmp_path) as storage:
        due, _ = await storage.outbox.due(NOW + 100, 10 * ROWS, 10 * ROWS)
        assert sorted(one.delivery_id for one in due) == [one for one in range(1, 2 * number + 1) if one not in lost]
    assert rows_of(tmp_path, "PRAGMA integrity_check(owed)") == [("ok",)]
