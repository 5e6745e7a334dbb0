"""Copies of the database that the writer's connection makes while it writes."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import BackupFailed, BackupRuns, ShuttingDown
from engine.protocols import CopySteps
from engine.storage import StorageOptions
from engine.storage.sqlite.copying import PAGES
from engine.storage.sqlite.database import SQLiteStorage, open_storage
from tests.support.storages import made


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
