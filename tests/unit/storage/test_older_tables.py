"""Tables of results and attempts that were set aside because of a damaged page."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from engine.model import Invocation, Record, State
from engine.model.retry import HISTORY
from engine.storage.sqlite.checks import find_problems
from engine.storage.sqlite.offline import copy_offline
from engine.storage.sqlite.older_tables import set_aside
from engine.storage.sqlite.storage import SQLiteStorage
from tests.contracts.storage import NOW, cancelled, discarded, failure, made, retried, settled, stored
from tests.support.damage import ROWS, StoredRows, kept, ranges, rows_of, storing
from tests.support.pages import Page

RESULT = b"%0200d" % 1
OLD = RESULT.replace(b"1", b"2")


async def end(storage: SQLiteStorage, invocations: Iterable[Invocation], result: bytes = RESULT) -> None:
    """End invocations with a result and, because they fail, an attempt."""
    await asyncio.gather(*(settled(storage, each, failure(each, result=result)) for each in invocations))


async def retry(storage: SQLiteStorage, invocations: Iterable[Invocation]) -> Sequence[Invocation]:
    return await asyncio.gather(*(retried(storage, each, failure(each, result=OLD)) for each in invocations))


async def shown(storage: SQLiteStorage, invocation: Invocation) -> Record:
    record = await storage.records.get(invocation.key)
    assert record is not None
    return record


async def ended(folder: Path, number: int = ROWS) -> StoredRows:
    data = await kept(folder, number, payload=b"{}")
    async with storing(folder) as storage:
        await end(storage, data.invocations)
    return data


def put_aside(folder: Path, *tables: str) -> None:
    """Set tables aside that are not damaged."""
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as database:
        for table in tables:
            set_aside(database, table)


async def pruned(storage: SQLiteStorage) -> set[str]:
    """Prune all that has ended, and return the request ids."""
    dropped = set[str]()
    for _ in range(20):
        step = await storage.records.purge(NOW + 10_000_000, age=1.0, rows=1_000_000, size=1 << 40)
        dropped.update(step.request_ids)
        if not step.more:
            return dropped
    raise AssertionError("pruning does not end")


@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while running"])
@pytest.mark.parametrize("table", ["result", "attempt"])
async def test_outcomes_are_stored_behind_a_damaged_newest_page(tmp_path: Path, table: str, running: bool) -> None:
    data = await ended(tmp_path)
    file, page = data.file, data.leaves(table)[-1]
    part = "result" if table == "result" else "attempts"
    if not running:
        file.smash(page)

    async with storing(tmp_path) as storage:
        if running:
            file.smash(page)
        new = [made(storage, 1, at=NOW + 1) for _ in range(20)]
        await asyncio.gather(*(storage.journal.append(each) for each in new))
        await end(storage, new[:-1])
        assert storage.statistics().failure == ""
        assert ranges(storage).keys() == {f"{table}_1"}
    for _ in range(2):
        async with storing(tmp_path) as storage:
            for each in (data.invocations[0], *new[:-1]):
                record = await shown(storage, each)
                assert (record.result, len(record.attempts), record.damaged) == (RESULT, 1, frozenset())
            assert (await shown(storage, data.invocations[-1])).damaged == {part}
            assert (await shown(storage, new[-1])).damaged == frozenset()


async def test_exactly_the_rows_of_the_damaged_page_are_noted(tmp_path: Path) -> None:
    data = await ended(tmp_path)
    page = data.leaves("result")[1]
    data.file.smash(page)
    middle = next(each for each in data.invocations if each.key == page.keys[1])

    async with storing(tmp_path) as storage:
        await end(storage, [middle])
        first, last = ranges(storage)["result_1"]
        assert [each.key for each in data.invocations if first <= each.key <= last] == list(page.keys)
        for each in data.invocations:
            lost = each.key in page.keys and each != middle
            assert (await shown(storage, each)).damaged == ({"result"} if lost else frozenset())


@pytest.mark.parametrize("table", ["result", "attempt"])
async def test_a_second_damaged_page_is_set_aside_too(tmp_path: Path, table: str) -> None:
    data = await ended(tmp_path)
    data.smash(table, -1)
    async with storing(tmp_path) as storage:
        more = [await stored(storage, 1, at=NOW + 1) for _ in range(ROWS)]
        await end(storage, more)
    data.smash(table, -1)

    async with storing(tmp_path) as storage:
        last = await stored(storage, 1, at=NOW + 2)
        await end(storage, [last])
        assert ranges(storage).keys() == {f"{table}_1", f"{table}_2"}
        for each in (data.invocations[0], more[0], last):
            record = await shown(storage, each)
            assert (record.result, len(record.attempts), record.damaged) == (RESULT, 1, frozenset())


async def test_a_replaced_result_is_not_shown_if_the_page_of_the_newer_one_is_damaged(tmp_path: Path) -> None:
    data = await kept(tmp_path, 4)
    again, once = data.invocations[:2], data.invocations[2:]
    async with storing(tmp_path) as storage:
        await end(storage, once)
        again = list(await retry(storage, again))
    put_aside(tmp_path, "result")
    async with storing(tmp_path) as storage:
        await end(storage, again)
        assert (await shown(storage, again[0])).result == RESULT
    data.smash("result", 0)

    async with storing(tmp_path) as storage:
        record = await shown(storage, again[0])
        assert (record.result, record.damaged) == (b"", frozenset({"result"}))
        record = await shown(storage, once[0])
        assert (record.result, record.damaged) == (RESULT, frozenset())


async def test_the_history_has_the_newest_attempts_of_all_tables(tmp_path: Path) -> None:
    data = await kept(tmp_path, 1)
    [one] = data.invocations
    for _ in range(2):
        async with storing(tmp_path) as storage:
            for _ in range(HISTORY // 2 + 2):
                one = await retried(storage, one, failure(one))
        put_aside(tmp_path, "attempt")
    async with storing(tmp_path) as storage:
        await end(storage, [one])
        record = await shown(storage, one)
    newest = range(one.attempt - HISTORY + 1, one.attempt + 1)
    assert [each.attempt for each in record.attempts] == list(newest)


async def test_logs_of_attempts_in_all_tables_count_until_they_are_pruned(tmp_path: Path) -> None:
    data = await kept(tmp_path, 1, payload=b"{}")
    [one] = data.invocations
    for _ in range(2):
        async with storing(tmp_path) as storage:
            one = await retried(storage, one, failure(one, log=b"a log"))
        put_aside(tmp_path, "attempt")
    async with storing(tmp_path) as storage:
        await end(storage, [one])
        assert [each.log for each in (await shown(storage, one)).attempts] == [b"a log", b"a log", b""]
    assert [each for each in find_problems(tmp_path) if each.part == "tally"] == []
    async with storing(tmp_path) as storage:
        await pruned(storage)
    assert rows_of(tmp_path, "SELECT rows, size FROM tally WHERE function_id = 0") == [(0, 0)]


@pytest.mark.parametrize("table", ["result", "attempt"])
async def test_pruning_drops_the_rows_of_all_tables(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path, payload=b"{}")
    early, late = data.invocations[: ROWS // 2], data.invocations[ROWS // 2 :]
    async with storing(tmp_path) as storage:
        await end(storage, early)
    data.smash(table, -1)

    async with storing(tmp_path) as storage:
        await end(storage, late)  # a search for their keys in the older table ends on its damaged page
        assert await pruned(storage) == {each.request_id for each in data.invocations}
        assert storage.statistics().failure == ""
    for name in ("invocation", "payload", "result", "attempt"):
        assert rows_of(tmp_path, f"SELECT count(*) FROM {name}") == [(0,)]
    assert rows_of(tmp_path, "SELECT rows FROM tally WHERE function_id = 0") == [(0,)]


async def test_pruning_drops_results_and_attempts_of_older_tables_without_damage(tmp_path: Path) -> None:
    await ended(tmp_path)
    put_aside(tmp_path, "result", "attempt")
    async with storing(tmp_path) as storage:
        assert len(await pruned(storage)) == ROWS
    for name in ("result_1", "attempt_1"):
        assert rows_of(tmp_path, f"SELECT count(*) FROM {name}") == [(0,)]
    assert rows_of(tmp_path, "SELECT rows, size FROM tally WHERE function_id = 0") == [(0, 0)]


async def test_a_waiting_invocation_behind_a_damaged_page_can_be_cancelled_and_discarded(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        again = await retry(storage, data.invocations)
    lost = data.smash("result", -1)
    one, *_ = (each for each in again if each.key in lost)

    async with storing(tmp_path) as storage:
        assert await storage.journal.cancel(one.key, cancelled()) == (one.function_id, len(one.payload))
        first = await stored(storage, one.function_id, at=NOW + 1)
        assert await storage.journal.cancel(first.key, cancelled()) is not None
        other = 3 - one.function_id
        found = await storage.journal.discard(other, (float("-inf"), 0), 2 * ROWS, discarded())
        assert set(found.keys) == set(data.keys(other))
    assert rows_of(tmp_path, "SELECT rows FROM tally WHERE function_id = ?", other) == [(0,)]


async def test_the_sizes_of_results_in_older_tables_are_counted_once(tmp_path: Path) -> None:
    data = await kept(tmp_path, 6)
    async with storing(tmp_path) as storage:
        again = await retry(storage, data.invocations)
    put_aside(tmp_path, "result")
    async with storing(tmp_path) as storage:
        await end(storage, again[:2], b"short")
        await storage.journal.cancel(again[2].key, cancelled())
        await storage.journal.discard(again[3].function_id, (float("-inf"), 0), 10, discarded())
    assert list(find_problems(tmp_path)) == []

    first = again[2].key
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("UPDATE result_1 SET body = ? WHERE key = ?", (RESULT, first))
    found = [problem.problem for problem in find_problems(tmp_path)]
    assert found == [f"the result or log of the invocation {first} differs from its checksum"]


async def test_an_outcome_is_stored_without_its_result_if_no_table_can_be_created(tmp_path: Path) -> None:
    data = await ended(tmp_path)
    async with storing(tmp_path) as storage:
        waiting = await stored(storage, 1, at=NOW + 1)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("CREATE TABLE unused (body)")
        database.execute("INSERT INTO unused VALUES (zeroblob(40000))")
        database.execute("DROP TABLE unused")
    data.smash("result", -1)
    first_free = int.from_bytes((tmp_path / "journal.db").read_bytes()[32:36], "big")
    data.file.smash(Page(first_free, 0))

    async with storing(tmp_path) as storage:
        await end(storage, [waiting])
        record = await shown(storage, waiting)
        assert (record.state, record.damaged, len(record.attempts)) == (State.FAIL, frozenset({"result"}), 1)
        assert storage.statistics().failure == ""
        assert "result" in ranges(storage)


async def test_columns_of_a_migration_reach_older_tables(tmp_path: Path) -> None:
    data = await ended(tmp_path, 2)
    put_aside(tmp_path, "attempt")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("ALTER TABLE attempt ADD COLUMN extra TEXT NOT NULL DEFAULT 'none'")
        database.execute("ALTER TABLE attempt ADD COLUMN more BLOB")
    async with storing(tmp_path) as storage:
        assert len((await shown(storage, data.invocations[0])).attempts) == 1
    assert rows_of(tmp_path, "SELECT extra, more FROM attempt_1") == [("none", None)] * 2


async def test_a_note_is_removed_after_the_page_can_be_read_again(tmp_path: Path) -> None:
    data = await ended(tmp_path)
    page = data.leaves("result")[-1]
    sound = (tmp_path / "journal.db").read_bytes()[(page.number - 1) * 4096 : page.number * 4096]
    data.file.smash(page)
    async with storing(tmp_path) as storage:
        await end(storage, [await stored(storage, 1, at=NOW + 1)])
    with (tmp_path / "journal.db").open("r+b") as file:
        file.seek((page.number - 1) * 4096)
        file.write(sound)

    async with storing(tmp_path) as storage:
        assert ranges(storage) == {}
        record = await shown(storage, data.invocations[-1])
        assert (record.result, record.damaged) == (RESULT, frozenset())


async def test_a_copy_has_the_results_and_attempts_of_all_tables(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    data = await ended(source)
    for table in ("result", "attempt"):
        data.smash(table, -1)
    async with storing(source) as storage:
        new = await stored(storage, 1, at=NOW + 1)
        await end(storage, [new])
    copy_offline(source, target, lambda copied, size: None)

    async with storing(target) as storage:
        for each in (data.invocations[0], new):
            record = await shown(storage, each)
            assert (record.result, len(record.attempts), record.damaged) == (RESULT, 1, frozenset())
        assert (await shown(storage, data.invocations[-1])).damaged == {"result", "attempts"}
