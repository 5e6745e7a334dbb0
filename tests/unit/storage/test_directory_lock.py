"""Lock of the data directory: one engine at a time, whatever happens to the files in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from engine.errors import DataDirectoryLocked, DataDirectoryUnusable
from engine.storage.data_directory import locked
from tests.acceptance.engine_process import engine_on
from tests.support.engine_process import functiond


def test_a_deleted_lock_file_lets_no_second_engine_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engine_on(data) as engine:
        (data / "lock").unlink()
        refused = functiond("serve", "--port", "0", "--data-dir", data)

    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused
    assert refused.stderr.startswith(f"functiond: {data} is in use by process {engine.pid}: stop that engine, or ")
    assert not (data / "lock").exists()


def test_a_second_lock_is_refused_with_the_owner(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DataDirectoryLocked) as refused, locked(tmp_path):
        pass
    assert refused.value.pid == os.getpid()

    with locked(tmp_path):
        pass


def test_an_engine_of_an_earlier_version_that_locks_only_the_file_excludes_this_one(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711")
        file.flush()
        with pytest.raises(DataDirectoryLocked) as refused, locked(tmp_path):
            pass

    assert refused.value.pid == 4711


def test_an_engine_of_an_earlier_version_is_excluded_by_this_one(tmp_path: Path) -> None:
    with locked(tmp_path), (tmp_path / "lock").open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_command_on_a_missing_directory_creates_none(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryUnusable, match="No such file"), locked(tmp_path / "none", create=False):
        pass

    assert not (tmp_path / "none").exists()
