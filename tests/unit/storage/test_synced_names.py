"""Names of files and folders on disk: synced before anything that depends on them is acknowledged."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.code.store import CodeSource, CodeStore
from engine.errors import NotStored
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked
from tests.support.http_app import encoded

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
