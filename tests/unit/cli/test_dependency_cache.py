"""Cache of installed dependencies: what other users and other processes may do to it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.deploy.packaging import cache
from engine.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.cache_folder()


def fill(new: Path) -> None:
    for number in range(50):
        (new / f"{number}.py").touch()


def test_other_users_may_neither_read_nor_write_the_cache(folder: Path) -> None:
    with cache.entry("key", fill) as kept:
        pass

    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder, kept)] == [0o700] * 3


@pytest.mark.parametrize("loose", ["dependencies", "."])
def test_a_folder_that_others_may_write_is_refused(folder: Path, loose: str) -> None:
    folder.mkdir(parents=True)
    (folder.parent / loose).chmod(0o777)

    with pytest.raises(UsageError, match=r"others may write it.*XDG_CACHE_HOME"), cache.entry("key", fill):
        pass


def test_other_processes_see_an_entry_whole_or_not_at_all() -> None:
    stopped, seen = threading.Event(), set[int]()

    def remove() -> None:
        while not stopped.is_set():
            cache.forget("key")

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(100):
            with cache.entry("key", fill) as kept:
                try:
                    names = [path.name for path in kept.iterdir()]
                except FileNotFoundError:
                    continue
                seen.add(len(names))
    finally:
        stopped.set()
        thread.join()

    assert seen <= {50}


def test_files_that_another_process_removes_during_pruning_are_skipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / ".new-gone"
    original = Path.iterdir

    def iterdir(self: Path) -> list[Path]:
        return [*original(self), gone]

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with cache.entry("key", fill) as kept:
        assert kept.is_dir()
