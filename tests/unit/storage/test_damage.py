"""Damaged pages: readable rows are processed, and an append or end that meets one ends the intake."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import anyio
import pytest

from engine.app.lifecycle import _unreadable
from engine.errors import DiskFailing, PageDamaged
from engine.model import DestinationSpec, State
from engine.protocols import FIRST, Selection, Settlement, WaitingEnd
from engine.storage.sqlite.checks import CATALOG, GROWING, find_problems
from tests.support.damage import ROWS, change, kept, ready, refusal, storing
from tests.support.programs import needs
from tests.support.storages import CANCELLED, NOW, ROOM, discarded, made, settled, stored, success

#: Lets reads at one offset of one file fail, as those of a bad sector do.
UNREADABLE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int is_bad(int descriptor, off_t offset, size_t size) {
    struct stat found;
    off_t bad = atoll(getenv("BAD_OFFSET"));
    return offset <= bad && bad < offset + (off_t)size && fstat(descriptor, &found) == 0
        && found.st_ino == strtoull(getenv("BAD_INODE"), 0, 10);
}
ssize_t read(int descriptor, void *buffer, size_t size) {
    if (is_bad(descriptor, lseek(descriptor, 0, SEEK_CUR), size)) { errno = EIO; return -1; }
    return syscall(SYS_read, descriptor, buffer, size);
}
ssize_t pread(int descriptor, void *buffer, size_t size, off_t offset) {
    if (is_bad(descriptor, offset, size)) { errno = EIO; return -1; }
    return syscall(SYS_pread64, descriptor, buffer, size, offset);
}
ssize_t pread64(int descriptor, void *buffer, size_t size, off_t offset) {
    return pread(descriptor, buffer, size, offset);
}
"""
#: Reads the ready rows of function 1. Prints their keys, the failure of writes, and the damage.
READER = """
import asyncio, json, sys
from pathlib import Path
from engine.storage import StorageOptions
from engine.storage.sqlite.database import open_storage

async def main():
    async with open_storage(StorageOptions(directory=Path(sys.argv[1]))) as storage:
        page = await storage.window.ready(1, (float("-inf"), 0), 1000, 1 << 20)
        state = storage.statistics()
        print(json.dumps([[one.key for one in page.invocations], state.failure, state.damage]))

asyncio.run(main())
"""


@pytest.mark.parametrize("table", ["invocation", "payload"])
@pytest.mark.parametrize("rows", [5, ROWS])
async def test_ready_rows_on_other_pages_are_read(tmp_path: Path, table: str, rows: int) -> None:
    data = await kept(tmp_path)
    lost = data.smash(table)
    content = (tmp_path / "journal.db").read_bytes()

    async with storing(tmp_path) as storage:
        for _ in range(2):
            assert await ready(storage, 1, rows) == data.keys(1, lost)
            assert await ready(storage, 2, rows) == data.keys(2, lost)
        state = storage.statistics()
        assert f"stop the engine and run `functiond recover {tmp_path}`" in state.damage
        assert (state.failure, state.refusal) == ("", "")
        await stored(storage, 3)

    damaged = content.index(b"\xee" * 32) // 4096 * 4096
    assert (tmp_path / "journal.db").read_bytes()[damaged : damaged + 4096] == content[damaged : damaged + 4096]


@pytest.mark.parametrize("table", ["invocation", "payload"])
async def test_delayed_rows_on_other_pages_become_ready(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path, delayed=True)
    lost = data.smash(table)

    async with storing(tmp_path) as storage:
        promoted, next_due = await storage.window.promote(NOW, ROWS, ROOM)

        assert {invocation.key for invocation in promoted} == {*data.keys(1, lost), *data.keys(2, lost)}
        assert next_due is None
        assert set(await ready(storage, 1)) == set(data.keys(1, lost))


@needs("gcc")
@pytest.mark.parametrize("place", ["header", "first frame", "behind the last commit"])
async def test_a_log_that_the_disk_cannot_read_is_no_damage(place: str, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    async with storing(tmp_path / "open") as storage:
        for _ in range(4):
            await stored(storage)
        shutil.copytree(tmp_path / "open", tmp_path / "data")
    index = await anyio.Path(tmp_path / "data/journal.db-shm").read_bytes()
    end = 32 + int.from_bytes(index[16:20], sys.byteorder) * 4120
    offset = {"header": 0, "first frame": 32, "behind the last commit": end}[place]

    environment = await failing_reads(tmp_path, tmp_path / "data/journal.db-wal", offset)
    command = [sys.executable, "-c", READER, str(tmp_path / "data")]
    ended = await anyio.run_process(command, env=environment, check=False)

    assert b"DiskFailing: " in ended.stderr, ended.stderr
    assert b"look for disk errors in the kernel's log" in ended.stderr


async def failing_reads(folder: Path, file: Path, offset: int) -> dict[str, str]:
    """Return the environment of a program for which reads at one offset of a file fail."""
    await anyio.Path(folder / "shim.c").write_text(UNREADABLE)
    await anyio.run_process(["gcc", "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c")])
    bad = {"BAD_INODE": str((await anyio.Path(file).stat()).st_ino), "BAD_OFFSET": str(offset)}
    return {**os.environ, "LD_PRELOAD": str(folder / "shim.so"), **bad}


@needs("gcc")
async def test_rows_on_a_page_that_the_disk_cannot_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = await kept(tmp_path / "data")
    page = data.leaves("payload")[1]
    environment = await failing_reads(tmp_path, tmp_path / "data/journal.db", (page.number - 1) * 4096)
    command = [sys.executable, "-c", READER, str(tmp_path / "data")]
    ended = await anyio.run_process(command, env=environment)

    read, failure, found = json.loads(ended.stdout.splitlines()[-1])
    assert read == data.keys(1, page.keys)
    assert failure == ""
    assert "a page of the journal is damaged" in found


async def test_an_undecodable_row_is_left_out(tmp_path: Path) -> None:
    data = await kept(tmp_path, 20)
    lost = data.invocations[4].key
    change(tmp_path, f"UPDATE invocation SET version = CAST(x'ff' AS TEXT) WHERE key = {lost}")

    async with storing(tmp_path) as storage:
        assert await ready(storage, 1) == data.keys(1, (lost,))
        assert "Could not decode" in storage.statistics().damage


async def test_an_index_is_read_up_to_its_damaged_page(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    data.smash("ready", -1)

    async with storing(tmp_path) as storage:
        assert await ready(storage, 1, 900) == data.keys(1)
        keys = await ready(storage, 2, 900)
        assert 0 < len(keys) < 450
        assert keys == data.keys(2)[: len(keys)]


async def test_deliveries_on_other_pages_are_made(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    sink = DestinationSpec(destination="TEST", param='{"a": "' + "x" * 50 + '"}')
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in data.invocations))
    lost = data.smash("owed")

    async with storing(tmp_path) as storage:
        for _ in range(2):
            due, next_due = await storage.outbox.due(NOW + 100, 1000, 1000)
            assert {delivery.delivery_id for delivery in due} == {*range(1, ROWS + 1)} - {*lost}
            assert next_due is None


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_delivery_whose_end_meets_a_damaged_page_is_not_made_again(tmp_path: Path, delivered: bool) -> None:
    data, sink = await kept(tmp_path, 400), DestinationSpec(destination="TEST", param="{}")
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=sink) for each in data.invocations))
    _, page, *_ = data.leaves("owed")
    file = data.file

    async with storing(tmp_path) as storage:
        due, _ = await storage.outbox.due(NOW + 100, 1000, 1000)
        file.smash(page)
        await storage.writer.call(lambda db: db.execute("PRAGMA shrink_memory"))
        [lost] = [delivery for delivery in due if delivery.delivery_id == page.keys[0]]
        with pytest.raises(PageDamaged):
            await (storage.outbox.delivered(lost) if delivered else storage.outbox.postpone(lost, NOW, "failed"))

        assert (storage.statistics().unstored, bool(storage.statistics().refusal)) == (1, True)
        again, _ = await storage.outbox.due(NOW + 100, 1000, 1000)
        assert lost.delivery_id not in {delivery.delivery_id for delivery in again}


async def test_a_list_at_a_damaged_page_fails_alone_and_nothing_is_pruned_from_then_on(tmp_path: Path) -> None:
    data = await kept(tmp_path, 600, payload=b"{}")
    async with storing(tmp_path) as storage:
        for each in data.invocations:
            storage.journal.settle(Settlement(invocation=each, state=State.SUCCESS, outcome=success(each)))
        await storage.store("a").write("table", {"x": b"1"})
    lost = data.smash("invocation", -2)

    async with storing(tmp_path) as storage:
        assert len((await storage.records.purge(NOW, age=1e9, rows=590, size=1 << 40)).request_ids) == 10
        for call in (
            storage.records.list(Selection(function_id=1)),
            storage.records.search(Selection(functions=frozenset({1, 2})), None, 1000),
            storage.records.get(lost[0]),
            storage.journal.end_all([lost[0]], CANCELLED),
        ):
            with pytest.raises(PageDamaged, match="see /healthz"):
                await call
        assert await storage.records.get(data.keys(1, lost)[-1])
        await stored(storage, 3)
        assert storage.statistics().refusal == ""
        step = await storage.records.purge(NOW, age=1e9, rows=580, size=1 << 40)
        assert (step.request_ids, step.more, step.next_due) == ((), False, None)
        assert await storage.store("a").purge("table", "z") == 0


async def test_a_discard_that_meets_a_damaged_page_fails(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    data.smash("invocation")

    async with storing(tmp_path) as storage:
        scan = await storage.records.waiting(Selection(function_id=1), FIRST, 200)
        with pytest.raises(PageDamaged):
            await storage.journal.end_all(scan.keys, WaitingEnd(state=State.DISCARD, outcome=discarded()))
        assert len(await ready(storage, 2)) > 0


async def test_an_append_at_a_damaged_page_ends_the_intake_and_not_its_batch(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    page = data.leaves("ready")[-1].number  # has the last rows of function 2
    data.smash("ready", -1)

    async with storing(tmp_path) as storage:
        waiting = asyncio.ensure_future(storage.damaged())
        new = [made(storage, number, at=NOW, rank=NOW + 1) for number in (1, 2, 1, 2, 1)]
        results = await asyncio.gather(*map(storage.journal.append, new), return_exceptions=True)
        assert [isinstance(result, PageDamaged) for result in results] == [False, True, False, True, False]
        assert storage.statistics().failure == ""
        with pytest.raises(PageDamaged):
            storage.journal.append(made(storage, 1, at=NOW))
        with pytest.raises(PageDamaged):
            storage.cursors.append([(made(storage, 1, at=NOW), "")])
        reason = await asyncio.wait_for(waiting, 30)

        assert reason == (
            f"page {page} of ready is damaged (database disk image is malformed); run `functiond recover {tmp_path}`"
        )
        assert storage.statistics().refusal == reason
        await settled(storage, data.invocations[0], success(data.invocations[0]))  # accepted work goes on
    assert await refusal(tmp_path) == f"{tmp_path}: {reason}"


@pytest.mark.parametrize("key", ["", "a"], ids=["plain", "with a key"])
async def test_a_batch_with_an_event_on_a_damaged_page_of_payloads_ends_the_intake(tmp_path: Path, key: str) -> None:
    data = await kept(tmp_path)
    pages = data.leaves("payload")
    file = data.file

    async with storing(tmp_path) as storage:
        file.smash(pages[-1])  # after the checks of the start
        await storage.writer.call(lambda db: db.execute("PRAGMA shrink_memory"))
        with pytest.raises(PageDamaged):
            await storage.cursors.append([(made(storage, 1, at=NOW), key)])
        assert storage.statistics().refusal
        assert f"page {pages[-1].number} of payload is damaged" in await asyncio.wait_for(storage.damaged(), 30)


async def test_an_end_at_a_damaged_page_is_not_announced_and_ends_the_intake(tmp_path: Path) -> None:
    data = await kept(tmp_path, 900, payload=b"{}")
    async with storing(tmp_path) as storage:
        first = [each for each in data.invocations if each.function_id == 2]
        for each in first[:-1]:
            storage.journal.settle(Settlement(invocation=each, state=State.SUCCESS, outcome=success(each)))
    data.smash("finished", -1)

    async with storing(tmp_path) as storage:
        other, announced = await stored(storage, 1), list[int]()
        for each in (first[-1], other):
            end = Settlement(invocation=each, state=State.SUCCESS, outcome=success(each))
            storage.journal.settle(end, then=lambda settlement: announced.append(settlement.invocation.key))
        with pytest.raises(PageDamaged):
            await storage.records.list(Selection(function_id=2))
        await storage.store("a").get("table", "after the ends")

        assert announced == [other.key]
        assert storage.statistics().unstored == 1
        assert storage.statistics().refusal
        assert "of finished is damaged" in await asyncio.wait_for(storage.damaged(), 30)


@pytest.mark.parametrize("table", [*CATALOG, "resource_owner", *GROWING])
async def test_a_damaged_page_that_each_start_needs_refuses_it(tmp_path: Path, table: str) -> None:
    data = await kept(tmp_path)
    data.smash(table, -1)

    reason = await refusal(tmp_path)
    assert "damaged" in reason or "malformed" in reason
    assert reason.endswith(f"run `functiond recover {tmp_path}`")


async def test_running_rows_on_a_damaged_page_are_not_recovered(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        for each in data.invocations:
            storage.journal.start(each, NOW)
    data.smash("invocation")

    async with storing(tmp_path) as storage:
        with pytest.raises(PageDamaged):
            await storage.journal.recover()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO damage VALUES ('payload', 1, 2, 0, 'malformed')",
        "CREATE TABLE payload_1 (key INTEGER PRIMARY KEY, body BLOB)",
        "CREATE TABLE status_log_12 (entry_id INTEGER PRIMARY KEY)",
    ],
)
async def test_damage_that_an_earlier_engine_went_on_with_refuses_the_start(tmp_path: Path, sql: str) -> None:
    await kept(tmp_path, 1)
    change(tmp_path, sql)

    assert "an earlier engine found damaged pages" in await refusal(tmp_path)
    [problem] = find_problems(tmp_path)
    assert problem.advice == "run `functiond recover DIR`"


async def test_a_read_that_failed_once_at_the_start_is_no_damage(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    assert isinstance(await _unreadable(tmp_path, "database disk image is malformed"), DiskFailing)

    data.smash("payload")
    error = await _unreadable(tmp_path, "database disk image is malformed")
    assert re.search(r"page \d+ of payload is damaged .* run `functiond recover", str(error))
    assert not isinstance(error, DiskFailing)
