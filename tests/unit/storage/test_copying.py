"""Copies of the database that the writer's connection makes while it writes, and reads for people beside the writer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import BackupFailed, BackupRuns, ShuttingDown, Unavailable
from engine.protocols import CopySteps, DeliveryFilter, Selection, Storage
from engine.storage import StorageOptions
from engine.storage.sqlite import outbox, record_search
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.copying import PAGES
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.database import SQLiteStorage, open_storage
from tests.support.damage import kept, storing
from tests.support.storages import KINDS, SINK, ended, made


async def fill(storage: SQLiteStorage, megabytes: int) -> None:
    for number in range(megabytes):
        put = {f"{number:04}-{part:04}": bytes(4000) for part in range(256)}
        await storage.store("filler").write("rows", put)


def rows(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as database:
        return database.execute(sql).fetchall()


async def test_a_copy_has_all_that_was_stored_before_and_is_sound_while_writes_go_on(tmp_path: Path) -> None:
    target, early, late = tmp_path / "target", list[int](), list[int]()
    target.mkdir()
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        await fill(storage, 4)
        for _ in range(20):
            await storage.journal.append(invocation := made(storage))
            early.append(invocation.key)
        steps, stored_by_then = list[tuple[int, int]](), list[int]()

        def on_progress(copied: int, total: int) -> None:
            steps.append((copied, total))
            stored_by_then.append(len(late))

        async def append(task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            while True:
                invocation = made(storage)
                await storage.journal.append(invocation)
                late.append(invocation.key)

        async with anyio.create_task_group() as tasks:
            await tasks.start(append)
            await storage.copy_to(target, on_progress)
            tasks.cancel_scope.cancel()
        alone = [key for [key] in rows(target / "journal.db", "SELECT key FROM invocation ORDER BY key")]

    assert rows(target / "journal.db", "PRAGMA integrity_check") == [("ok",)]
    assert alone[: len(early)] == early
    assert 0 < len(alone) - len(early) <= len(late)
    assert alone == (early + late)[: len(alone)]
    assert rows(target / "journal.db", "SELECT count(*) FROM payload") == [(len(alone),)]
    assert stored_by_then[0] < stored_by_then[-1]  # writes did not wait for the end of the copy
    assert len(steps) > 4 << 20 // (PAGES * 4096)
    assert steps[-1][0] == steps[-1][1] >= 4 << 20
    assert sorted(path.name for path in target.iterdir()) == ["journal.db"]


async def test_a_refused_row_during_a_copy_fails_alone_and_the_copy_is_sound(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        await fill(storage, 2)
        twice = made(storage)
        await storage.journal.append(twice)
        refused = list[BaseException | None]()

        async def append_twice() -> None:
            [failed, _] = await asyncio.gather(
                storage.journal.append(twice), storage.journal.append(made(storage)), return_exceptions=True
            )
            refused.append(failed if isinstance(failed, BaseException) else None)

        async with anyio.create_task_group() as tasks:

            def on_progress(copied: int, total: int) -> None:
                if len(refused) < 3:
                    tasks.start_soon(append_twice)

            await storage.copy_to(target, on_progress)
        states = [await storage.records.get(twice.key)]

    assert [type(error) for error in refused][:3] == [sqlite3.IntegrityError] * 3
    assert states[0] is not None
    assert rows(target / "journal.db", "PRAGMA integrity_check") == [("ok",)]


async def test_one_copy_runs_at_a_time(tmp_path: Path) -> None:
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        await fill(storage, 1)
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        copies = (storage.copy_to(folder, lambda copied, total: None) for folder in folders)
        ends = await asyncio.gather(*copies, return_exceptions=True)

        assert [type(end) for end in ends] == [CopySteps, BackupRuns]
        (tmp_path / "c").mkdir()
        assert (await storage.copy_to(tmp_path / "c", lambda copied, total: None)).made > 0


async def test_a_cancelled_copy_ends_and_writes_go_on(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        await fill(storage, 2)
        with anyio.CancelScope() as scope:
            await storage.copy_to(target, lambda copied, total: scope.cancel())

        assert scope.cancelled_caught
        invocation = made(storage)
        await storage.journal.append(invocation)
        assert await storage.records.get(invocation.key) is not None


async def test_a_storage_that_closes_ends_its_copy(tmp_path: Path) -> None:
    target, ends = tmp_path / "target", list[BaseException]()
    target.mkdir()

    async def copy(storage: SQLiteStorage, begun: anyio.Event) -> None:
        try:
            await storage.copy_to(target, lambda copied, total: begun.set())
        except ShuttingDown as end:
            ends.append(end)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, open_storage(StorageOptions(directory=tmp_path)) as storage:
            await fill(storage, 8)
            begun, invocation = anyio.Event(), made(storage)
            tasks.start_soon(copy, storage, begun)
            await begun.wait()
            appended = storage.journal.append(invocation)

    assert [str(end) for end in ends] == ["the engine is shutting down"]
    assert appended.done()
    assert rows(tmp_path / "journal.db", "SELECT key FROM invocation") == [(invocation.key,)]


async def test_a_copy_to_an_existing_file_is_refused_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    file = tmp_path / "target" / "journal.db"
    file.write_text("mine")
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        with pytest.raises(BackupFailed, match="File exists; free space there, or choose another destination"):
            await storage.copy_to(file.parent, lambda copied, total: None)

    assert file.read_text() == "mine"


LOOKS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "records": lambda storage: storage.records.list(Selection(function_id=1)),
    "record": lambda storage: storage.records.get(1),
    "given up": lambda storage: storage.outbox.given_up([1], 0, 10),
    "pending": lambda storage: storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_a_look_at_the_journal_and_a_commit_do_not_wait_for_each_other(tmp_path: Path, look: str) -> None:
    looked = threading.Event()
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        commit = asyncio.ensure_future(storage.writer.call(lambda db: looked.wait(30)))
        await LOOKS[look](storage)
        looked.set()

        assert await commit


# --- connections that cannot be opened -----------------------------------------------------------------------


async def test_a_database_that_cannot_be_opened_for_reading_is_unavailable(tmp_path: Path) -> None:
    readers = Readers(tmp_path / "missing.db", Damage(tmp_path))

    with pytest.raises(Unavailable, match="the journal cannot be opened for reading: unable to open database file"):
        await readers.call(lambda database: None)


async def test_the_thread_of_a_connection_that_cannot_be_opened_has_ended(tmp_path: Path) -> None:
    """A thread that is left would answer to an event loop that may be closed by then."""
    for _ in range(20):
        before = set(threading.enumerate())
        with pytest.raises(sqlite3.OperationalError):
            async with connected(tmp_path / "no" / "folder.db"):
                pass

        assert not {thread.name for thread in set(threading.enumerate()) - before if "worker_thread" in thread.name}


# --- a slow disk ---------------------------------------------------------------------------------------------


async def test_a_step_without_time_passes_empty_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_search, "BUDGET", 0.0)
    data = await kept(tmp_path, 20)  # none runs, so the first part of the list is empty
    async with storing(tmp_path) as storage:
        first = await storage.records.search(Selection(function_id=1), None, 40)
        assert first.last is not None
        rest = await storage.records.search(Selection(function_id=1), first.last, 40)

    assert [record.key for record in first.records] == data.keys(1)
    assert (rest.records, rest.more) == ((), False)


# --- pages of deliveries -------------------------------------------------------------------------------------


async def test_a_page_that_has_read_enough_rows_ends_early_with_the_place_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROWS_SCANNED", 3)
    async with KINDS["sqlite"](tmp_path)() as storage:
        for function_id in (1, *[2] * 6, 1):
            await ended(storage, function_id, deliver_to=SINK)
        pages: list[tuple[list[int], int]] = []
        after = 0
        while not pages or after:
            found, after = await storage.outbox.page(DeliveryFilter(functions=[1]), after, 10)
            pages.append(([delivery.delivery_id for delivery in found], after))

    assert pages == [([1], 3), ([], 6), ([8], 0)]


async def test_counts_go_on_where_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ROWS_SCANNED", 3)
    async with KINDS["sqlite"](tmp_path)() as storage:
        for function_id in (1, 1, 2, 1):
            await ended(storage, function_id, deliver_to=SINK)
        first, after = await storage.outbox.counts([1, 2], 0)
        second, end = await storage.outbox.counts([1, 2], after)

    assert [[(row.function_id, row.count) for row in part] for part in (first, second)] == [[(1, 2), (2, 1)], [(1, 1)]]
    assert (after, end) == (3, 0)


async def test_pages_and_rows_made_due_are_found_by_their_ids_and_nothing_is_sorted(tmp_path: Path) -> None:
    async with KINDS["sqlite"](tmp_path)():
        pass
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        sql, values = outbox.page(DeliveryFilter(functions=[1, 2], destination=SINK))
        page = plan(database, sql, 0, 100, *values, 10)
        looked_at = plan(database, outbox.SCANNED_UNTIL, 0, 100)
        revived = plan(database, outbox.revival(2, 2), 0.0, 0.0, 1, 2, 3, 4)
        removed = plan(database, outbox.removal(2, 2), 1, 2, 3, 4)

    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in page
    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid>?)" in looked_at
    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid=?)" in revived
    steps = (*page, *looked_at, *revived, *removed)
    assert [step for step in steps if "SCAN owed" in step or "TEMP B-TREE" in step] == []


def plan(database: sqlite3.Connection, sql: str, *values: object) -> list[str]:
    return [detail for *_, detail in database.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
