"""Damaged pages: one stops only its own rows, which stay as they are, and all others are processed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from engine.errors import DataDirectoryUnusable, NotStored
from engine.model import DestinationSpec, State
from engine.model.identity import accepted_at
from engine.protocols import FIRST, Selection, Settlement, WaitingEnd
from engine.storage.sqlite.checks import find_problems
from tests.contracts.storage import NOW, ROOM, cancelled, discarded, failure, made, retried, settled, stored, success
from tests.support.damage import BEGINNING, ROWS, kept, ranges, ready, rows_of, storing
from tests.support.programs import needs

#: Lets reads at one offset of one file fail, as those of a bad sector do.
UNREADABLE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int is_bad(int descriptor, off_t offset) {
    struct stat found;
    return offset == atoll(getenv("BAD_OFFSET")) && fstat(descriptor, &found) == 0
        && found.st_ino == strtoull(getenv("BAD_INODE"), 0, 10);
}
ssize_t read(int descriptor, void *buffer, size_t size) {
    if (is_bad(descriptor, lseek(descriptor, 0, SEEK_CUR))) { errno = EIO; return -1; }
    return syscall(SYS_read, descriptor, buffer, size);
}
ssize_t pread(int descriptor, void *buffer, size_t size, off_t offset) {
    if (is_bad(descriptor, offset)) { errno = EIO; return -1; }
    return syscall(SYS_pread64, descriptor, buffer, size, offset);
}
ssize_t pread64(int descriptor, void *buffer, size_t size, off_t offset) {
    return pread(descriptor, buffer, size, offset);
}
"""
#: Reads the ready rows of function 1. Prints their keys, the failure of writes, and the damaged ranges.
READER = """
import asyncio, json, sys
from pathlib import Path
from engine.storage.options import StorageOptions
from engine.storage.sqlite import open_sqlite

async def main():
    async with open_sqlite(StorageOptions(directory=Path(sys.argv[1]))) as storage:
        page = await storage.window.ready(1, (float("-inf"), 0), 1000, 1 << 20)
        state = storage.statistics()
        found = [(one.name, one.from_key, one.to_key) for one in state.damage]
        print(json.dumps([[one.key for one in page.invocations], state.failure, found]))

asyncio.run(main())
"""


@pytest.mark.parametrize("table", ["invocation", "payload"])
@pytest.mark.parametrize("rows", [5, ROWS])
async def test_ready_rows_on_other_pages_are_read(tmp_path: Path, table: str, rows: int) -> None:
    data = await kept(tmp_path)
    lost = data.smash(table)
    content = (tmp_path / "journal.db").read_bytes()

    for _ in range(2):  # the second time, the notes are known at the start
        async with storing(tmp_path) as storage:
            assert await ready(storage, 1, rows) == data.keys(1, lost)
            assert await ready(storage, 2, rows) == data.keys(2, lost)
            assert ranges(storage) == {table: (lost[0], lost[-1])}

    damaged = content.index(b"\xee" * 32) // 4096 * 4096
    assert (tmp_path / "journal.db").read_bytes()[damaged : damaged + 4096] == content[damaged : damaged + 4096]


@pytest.mark.parametrize("table", ["invocation", "payload"])
async def test_delayed_rows_on_other_pages_become_ready(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path, delayed=True)
    lost = data.smash(table)

    async with storing(tmp_path) as storage:
        promoted, next_due = await storage.window.promote(NOW, ROWS, ROOM)

        assert {one.key for one in promoted} == {*data.keys(1, lost), *data.keys(2, lost)}
        assert next_due is None
        assert set(await ready(storage, 1)) == set(data.keys(1, lost))


async def test_rows_that_can_be_read_again_are_processed_after_the_next_start(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    content = (tmp_path / "journal.db").read_bytes()
    page = data.leaves("payload")[1]
    data.file.smash(page)
    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == data.keys(1, page.keys)
    at = (page.number - 1) * 4096
    with (tmp_path / "journal.db").open("r+b") as file:
        file.seek(at)
        file.write(content[at : at + 4096])

    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == data.keys(1)
        assert ranges(storage) == {}


@needs("gcc")
async def test_rows_on_a_page_that_the_disk_cannot_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = await kept(tmp_path / "data")
    page = data.leaves("payload")[1]
    (tmp_path / "shim.c").write_text(UNREADABLE)
    await anyio.run_process(["gcc", "-shared", "-fPIC", "-o", str(tmp_path / "shim.so"), str(tmp_path / "shim.c")])
    environment = {
        **os.environ,
        "LD_PRELOAD": str(tmp_path / "shim.so"),
        "BAD_INODE": str((tmp_path / "data/journal.db").stat().st_ino),
        "BAD_OFFSET": str((page.number - 1) * 4096),
    }
    command = [sys.executable, "-c", READER, str(tmp_path / "data")]
    ended = await anyio.run_process(command, env=environment)

    read, failure, found = json.loads(ended.stdout.splitlines()[-1])
    assert read == data.keys(1, page.keys)
    assert failure == ""
    assert found == [["payload", page.keys[0], page.keys[-1]]]


async def test_an_undecodable_row_is_left_out(tmp_path: Path) -> None:
    data = await kept(tmp_path, 20)
    lost = data.invocations[4].key
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute("UPDATE invocation SET version = CAST(x'ff' AS TEXT) WHERE key = ?", (lost,))

    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == data.keys(1, (lost,))
        assert ranges(storage) == {"invocation": (lost, lost)}


async def test_the_newest_invocation_before_a_time_is_unknown_on_a_damaged_page(tmp_path: Path) -> None:
    data = await kept(tmp_path, at=None)  # each a second after the one before
    newest, lost = data.invocations[-1], data.smash("invocation")

    async with storing(tmp_path) as storage:
        assert await storage.records.newest(accepted_at(lost[-1]) + 0.5) is None
        assert await storage.records.newest(newest.accepted_at + 0.5) == newest.accepted_at


async def test_two_damaged_pages_are_two_ranges(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    file, (_, first, _, second, *_) = data.file, data.leaves("payload")
    file.smash(first)
    file.smash(second)

    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == data.keys(1, first.keys + second.keys)
        found = sorted((one.from_key, one.to_key) for one in storage.statistics().damage)
        assert found == [(first.keys[0], first.keys[-1]), (second.keys[0], second.keys[-1])]


async def test_running_rows_on_other_pages_are_recovered(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        for each in data.invocations:
            storage.journal.start(each, NOW)
    lost = data.smash("invocation")

    async with storing(tmp_path) as storage:
        recovery = await storage.journal.recover()

        assert (recovery.revived, recovery.waiting) == (ROWS - len(lost), {1, 2})
        assert await ready(storage, 1) == data.keys(1, lost)


@pytest.mark.parametrize("index", ["ready", "running", "delayed"])
async def test_an_index_that_the_start_cannot_read_is_rebuilt_at_once(tmp_path: Path, index: str) -> None:
    number = 900  # several pages of the index
    data = await kept(tmp_path, number, payload=b"{}", delayed=index == "delayed")
    if index == "running":
        async with storing(tmp_path) as storage:
            for each in data.invocations:
                storage.journal.start(each, NOW)
    data.smash(index, 0)

    async with storing(tmp_path) as storage:
        recovery = await storage.journal.recover()
        await storage.window.promote(NOW, number, ROOM)

        assert recovery.revived == (number if index == "running" else 0)
        assert set(await ready(storage, 1, number)) == set(data.keys(1))
        assert ranges(storage) == {}
    assert list(find_problems(tmp_path)) == []


async def test_an_index_damaged_while_the_engine_runs_is_rebuilt_at_the_next_start(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    before = data.leaves("ready")
    data.smash("ready", len(before) - 1)

    async with storing(tmp_path) as storage:
        assert len(await ready(storage, 1, 900)) == 450
        assert len(await ready(storage, 2, 900)) < 450
        assert ranges(storage) == {"ready": (0, 0)}
        await storage.journal.append(made(storage, 1, at=NOW, rank=0.0))  # on another page of the index
    async with storing(tmp_path) as storage:
        assert ranges(storage) == {}
        assert await ready(storage, 2, 900) == data.keys(2)
    assert rows_of(tmp_path, "SELECT * FROM damage") == []


async def test_rows_that_a_damaged_index_cannot_take_are_refused_and_others_stored(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    data.smash("ready", len(data.leaves("ready")) - 1)  # has the last rows of function 2

    async with storing(tmp_path) as storage:
        tasks = [storage.journal.append(made(storage, number, at=NOW, rank=NOW + 1)) for number in (1, 2, 1)]
        found = await asyncio.gather(*tasks, return_exceptions=True)

        assert [isinstance(one, NotStored) for one in found] == [False, True, False]
        assert storage.statistics().failure == ""
        assert "ready" in ranges(storage)
    async with storing(tmp_path) as storage:
        assert ranges(storage) == {}
        await storage.journal.append(made(storage, 2, at=NOW))
        assert len(await ready(storage, 2, 900)) == 451


async def test_an_end_that_a_damaged_index_cannot_take_runs_again_after_the_next_start(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    async with storing(tmp_path) as storage:
        first = [each for each in data.invocations if each.function_id == 2]
        for each in first[:-1]:
            storage.journal.settle(Settlement(invocation=each, state=State.SUCCESS, outcome=success(each)))
    data.smash("finished", len(data.leaves("finished")) - 1)

    async with storing(tmp_path) as storage:
        other = await stored(storage, 1)
        await asyncio.gather(settled(storage, first[-1], success(first[-1])), settled(storage, other, success(other)))

        assert storage.statistics().failure == ""
        assert await ready(storage, 2) == []  # left out until the index is rebuilt
        record = await storage.records.get(other.key)
        assert record is not None
        assert record.state is State.SUCCESS
    async with storing(tmp_path) as storage:
        assert ranges(storage) == {}
        assert await ready(storage, 2) == [first[-1].key]


@pytest.mark.parametrize("table", ["result", "attempt"])
async def test_a_damaged_result_or_attempt_does_not_stop_writes(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        again = [await retried(storage, each, failure(each, result=b"%0300d" % 1)) for each in data.invocations]
    if table == "result":
        lost = data.smash("result")
    else:
        data.smash("attempt", 0)
        lost = (again[0].key,)

    async with storing(tmp_path) as storage:
        sink = DestinationSpec(destination="TEST", param="{}")
        tasks = [settled(storage, each, success(each, result=b"fine"), deliver_to=sink) for each in again]
        await asyncio.gather(*tasks, stored(storage, 3))
        record = await storage.records.get(lost[0])

        assert storage.statistics().failure == ""
        assert record is not None
        assert (record.state, record.result) == (State.SUCCESS, b"fine")
        assert record.damaged == ({"attempts"} if table == "attempt" else frozenset())  # the first attempt is lost
        assert {one.attempt for one in record.attempts} == ({2} if table == "attempt" else {1, 2})
        assert f"{table}_1" in ranges(storage)
    states = rows_of(tmp_path, "SELECT count(*) FROM invocation WHERE state = 3")
    assert (states, rows_of(tmp_path, "SELECT count(*) FROM owed")) == ([(ROWS,)], [(ROWS,)])


async def test_rows_beside_a_damaged_page_can_end(tmp_path: Path) -> None:
    """A row that grows may not fit on its page any more, and SQLite then reads the pages beside it."""
    data = await kept(tmp_path)
    lost = data.smash("invocation")
    others = [each for each in data.invocations if each.key not in lost]

    async with storing(tmp_path) as storage:
        await ready(storage, 1)
        for each in others:
            storage.journal.start(each, NOW)
        await ready(storage, 1)  # commits the starts
        await asyncio.gather(*(settled(storage, each, failure(each)) for each in others))

        assert storage.statistics().failure == ""
        assert ranges(storage).keys() == {"invocation"}
        records = [await storage.records.get(each.key) for each in others[:3]]
        assert [record and (record.state, record.code) for record in records] == [(State.FAIL, 4002)] * 3
    found = rows_of(tmp_path, "SELECT count(function_id) FROM invocation INDEXED BY finished WHERE state >= 3")
    assert found == [(len(others),)]


@pytest.mark.parametrize("table", ["invocation", "payload", "result"])
async def test_pruning_drops_the_finished_rows_on_other_pages(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        for each in data.invocations:
            storage.journal.settle(
                Settlement(invocation=each, state=State.SUCCESS, outcome=success(each, result=b"%0300d" % 1))
            )
    lost = data.smash(table)

    dropped = set[str]()
    async with storing(tmp_path) as storage:
        for _ in range(20):
            step = await storage.records.purge(NOW + 10_000_000, age=1.0, rows=1_000_000, size=1 << 40)
            dropped.update(step.request_ids)
            if not step.more:
                break
        assert not step.more
        assert storage.statistics().failure == ""
        kept_ids = {each.request_id for each in data.invocations if each.key in lost}
        # Rows beside the page stay if their page became too empty and would have to be joined with the damaged one.
        assert not dropped & kept_ids
        assert len(dropped) >= ROWS - 3 * len(lost)


async def test_idempotency_keys_expire_beside_a_damaged_page(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        await storage.journal.append(made(storage, 1, at=NOW), idempotency_key="a")
    data.smash("invocation", 0)

    async with storing(tmp_path) as storage:
        for _ in range(3):
            await storage.records.purge(NOW + 1_000_000, age=1.0, rows=1_000_000, size=1 << 40)
    assert rows_of(tmp_path, "SELECT count(*) FROM idempotency") == [(0,)]


@pytest.mark.parametrize("table", ["invocation", "payload"])
async def test_discarding_ends_the_waiting_rows_on_other_pages(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path)
    lost = data.smash(table) if table == "invocation" else ()

    async with storing(tmp_path) as storage:
        keys, after = list[int](), BEGINNING
        for _ in range(20):
            step = await storage.journal.discard(1, after, 200, discarded())
            keys += step.keys
            if step.reached is None:
                break
            after = step.reached

        assert sorted(keys) == data.keys(1, lost)
        assert storage.statistics().failure == ""
        assert await ready(storage, 2) == data.keys(2, lost)


async def test_rows_beside_a_damaged_page_can_be_cancelled(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    lost = data.smash("invocation")
    others = [each for each in data.invocations if each.key not in lost]

    async with storing(tmp_path) as storage:
        found = await asyncio.gather(*(storage.journal.cancel(each.key, cancelled()) for each in others))

        assert found == [(each.function_id, len(each.payload)) for each in others]
        assert storage.statistics().failure == ""
        with pytest.raises(NotStored, match="damaged"):
            await storage.journal.cancel(lost[0], cancelled())


async def test_rows_beside_a_damaged_page_are_found_and_ended_together(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    lost = data.smash("invocation")
    end = WaitingEnd(state=State.FAIL, outcome=cancelled())

    async with storing(tmp_path) as storage:
        found = await storage.journal.end_all([each.key for each in data.invocations], end)
        assert sorted(key for key, _ in found) == sorted(set(data.keys(1, lost)) | set(data.keys(2, lost)))
        assert storage.statistics().failure == ""

        scan = await storage.records.waiting(Selection(function_id=1, source="API"), FIRST, 1000)
        assert (scan.keys, scan.reached) == ((), None)


async def test_deliveries_on_other_pages_are_made(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    sink = DestinationSpec(destination="TEST", param='{"a": "' + "x" * 50 + '"}')
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in data.invocations))
    lost = data.smash("owed")

    async with storing(tmp_path) as storage:
        for _ in range(2):
            due, _ = await storage.outbox.due(NOW + 100, 1000, 1000)
            assert {one.delivery_id for one in due} == {*range(1, ROWS + 1)} - {*lost}


@pytest.mark.parametrize(
    "table", ["meta", "function", "function_version", "async_settings", "resource", "cursor", "tally"]
)
async def test_a_damaged_table_of_the_catalog_refuses_the_start(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path, 1)
    data.smash(table, 0)

    with pytest.raises(DataDirectoryUnusable, match="functiond restore"):
        async with storing(tmp_path):
            pass


async def test_the_index_of_the_resources_is_rebuilt_at_the_start(tmp_path: Path) -> None:
    data = await kept(tmp_path, 1)
    data.smash("resource_owner", 0)

    async with storing(tmp_path) as storage:
        assert ranges(storage) == {}
    assert rows_of(tmp_path, "PRAGMA integrity_check(resource)") == [("ok",)]
