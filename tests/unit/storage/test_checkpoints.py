"""Checkpoints of the write-ahead log, on a real file that may not grow."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest
from structlog.testing import capture_logs

from engine.code.store import CodeSource, CodeStore
from engine.errors import NotStored
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked
from engine.storage.sqlite.checkpoints import PAGES, Checkpoints
from engine.storage.sqlite.database import SQLiteStorage
from tests.support.http_app import encoded
from tests.support.storages import made

PAGE = 4096
LONG = PAGES * PAGE  #: bytes of a log that is long enough for a checkpoint
PAYLOAD = bytes(256 << 10)
BALLAST = 1 << 20


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[SQLiteStorage]:
    with locked(data):
        async with open_storage(StorageOptions(directory=data, ballast=BALLAST)) as storage:
            yield storage


async def append(storage: SQLiteStorage, size: int) -> None:
    """Store invocations with payloads of this size together, one in each commit."""
    for _ in range(0, size, len(PAYLOAD)):
        await storage.journal.append(made(storage, payload=PAYLOAD))


@contextmanager
def no_file_may_exceed(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def locks_on(path: Path) -> list[list[str]]:
    """Return the locks of this process on a file, without their numbers, which others' locks change."""
    end = f":{path.stat().st_ino}"
    fields = [line.split()[1:] for line in Path("/proc/locks").read_text().splitlines()]
    return [line for line in fields if str(os.getpid()) in line and any(field.endswith(end) for field in line)]


async def test_the_log_starts_anew_after_each_checkpoint(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        await append(storage, 4 * LONG)
        statistics = storage.statistics()

        assert LONG < statistics.log_size < 1.25 * LONG
        assert (tmp_path / "journal.db").stat().st_size > 3 * LONG


async def test_a_short_log_is_not_checkpointed(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        await append(storage, LONG // 2)

        assert (tmp_path / "journal.db").stat().st_size < LONG // 4


async def test_a_database_that_cannot_grow_shows_until_it_can(tmp_path: Path) -> None:
    database, ballast = tmp_path / "journal.db", tmp_path / "ballast"
    async with opened(tmp_path) as storage:
        await append(storage, 3 * LONG)
        failed_at = monotonic()
        with capture_logs() as lines, no_file_may_exceed(database.stat().st_size):
            await append(storage, 2 * LONG)  # all are stored, in the log only
            failing, given_up = storage.statistics(), not ballast.exists()
        assert failing.checkpoint_failure
        assert failing.failure == ""
        assert failing.log_size > 1.5 * LONG
        assert given_up
        assert [line["event"] for line in lines] == ["journal cannot checkpoint"]
        assert lines[0]["problem"] == failing.checkpoint_failure

        with capture_logs() as lines:
            await append(storage, LONG // 4)
        assert storage.statistics().checkpoint_failure == ""
        assert storage.statistics().checkpoint_age < monotonic() - failed_at
        assert [line["event"] for line in lines] == ["journal checkpoints again"]
        assert ballast.exists()
        assert database.stat().st_size > 4 * LONG


async def test_a_reader_that_holds_the_log_is_no_failure(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        with closing(sqlite3.connect(f"file:{tmp_path}/journal.db?mode=ro", uri=True)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM invocation").fetchone()
            await append(storage, 2 * LONG)
            held = storage.statistics()
        assert held.log_size > 2 * LONG
        assert held.checkpoint_failure == ""

        await append(storage, LONG)
        assert (tmp_path / "journal.db").stat().st_size > 2 * LONG


async def test_the_age_counts_from_the_last_checkpoint(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        await append(storage, LONG // 2)
        middle = monotonic()
        assert storage.statistics().checkpoint_age > monotonic() - middle  # since the start
        await append(storage, LONG)

        assert storage.statistics().checkpoint_age < monotonic() - middle


async def test_the_locks_of_the_connection_stay(tmp_path: Path) -> None:
    """Closing a descriptor of the log's index would drop them, and another process could delete the log."""
    async with opened(tmp_path) as storage:
        await append(storage, 2 * LONG)
        assert locks_on(tmp_path / "journal.db-shm")


def test_an_index_of_an_unknown_format_is_left_to_sqlite(tmp_path: Path) -> None:
    (tmp_path / "journal.db-shm").write_bytes(bytes(32768))

    with capture_logs() as lines, closing(Checkpoints(tmp_path / "journal.db")) as checkpoints:
        assert not checkpoints.watch()

    assert [line["event"] for line in lines] == ["index of the write-ahead log has an unknown format"]


Synced = list[tuple[Path, frozenset[str]]]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Record each path that is synced to disk, and for a folder the names in it at that moment."""
    done: Synced = []
    record(monkeypatch, lambda path, names: done.append((path, names)))
    return done


def record(monkeypatch: pytest.MonkeyPatch, note: Callable[[Path, frozenset[str]], None]) -> None:
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        note(path, frozenset(os.listdir(path)) if path.is_dir() else frozenset())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)


def inline(text: str) -> CodeSource:
    return CodeSource(kind="inline", file=encoded(text))


def test_a_new_data_directory_and_its_new_parents_are_synced(tmp_path: Path, synced: Synced) -> None:
    with locked(tmp_path / "a" / "b"):
        names = {name for _, synced_names in synced for name in synced_names}

    assert [path for path, _ in synced] == [tmp_path / "a", tmp_path]
    assert names >= {"a", "b"}


async def test_a_start_syncs_the_names_of_its_files(tmp_path: Path, synced: Synced) -> None:
    with locked(tmp_path):
        async with open_storage(StorageOptions(directory=tmp_path)):
            opened = [names for path, names in synced if path == tmp_path]

    assert opened[-1] >= {"lock", "journal.db", "journal.db-wal"}


async def test_a_start_syncs_the_log_that_a_killed_engine_left(tmp_path: Path, synced: Synced) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with locked(data):
        async with open_storage(StorageOptions(directory=data)):
            shutil.copytree(data, copy)
    del synced[:]

    with locked(copy):
        async with open_storage(StorageOptions(directory=copy)):
            pass

    assert copy / "journal.db-wal" in [path for path, _ in synced]


async def test_a_package_and_the_folder_of_all_packages_are_synced_before_they_are_used(
    tmp_path: Path, synced: Synced
) -> None:
    code = await CodeStore(tmp_path / "code").add(inline("x = 1"), handler="index.handler")

    folders = {path: names for path, names in synced if path in (tmp_path, tmp_path / "code")}
    assert folders[tmp_path / "code"] >= {code.sha256, f"{code.sha256}.package"}
    assert folders[tmp_path] == {"code"}


async def test_a_package_whose_name_could_not_be_synced_is_synced_when_it_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder, failing = CodeStore(tmp_path / "code"), tmp_path / "code", True
    synced: Synced = []

    def note(path: Path, names: frozenset[str]) -> None:
        if failing and path == folder:
            raise OSError(errno.EIO, "Input/output error")
        synced.append((path, names))

    record(monkeypatch, note)
    with pytest.raises(NotStored):
        await store.add(inline("x = 1"), handler="index.handler")
    failing = False
    code = await store.add(inline("x = 1"), handler="index.handler")

    assert code.sha256 in dict(synced)[folder]


def test_the_lock_on_the_database_survives_the_sync_of_its_log(tmp_path: Path) -> None:
    """Closing a file drops the locks of this process on it. Those of SQLite are on other files than the log."""
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        before = locks(tmp_path)
        os.close(os.open(f"{path}-wal", os.O_RDONLY))

        assert locks(tmp_path) == before != []


def locks(folder: Path) -> list[str]:
    """Return the locks of this process on files of the folder, without their numbers, which others' locks change."""
    inodes = {f":{entry.stat().st_ino} " for entry in os.scandir(folder)}
    lines = (line.partition(": ")[2] for line in Path("/proc/locks").read_text().splitlines())
    return sorted(line for line in lines if f" {os.getpid()} " in line and any(inode in line for inode in inodes))
