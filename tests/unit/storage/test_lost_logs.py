"""Start after a kill, on files of which some were deleted, cut, or taken from another moment or engine."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.storage.sqlite import checkpoints
from engine.storage.sqlite.checkpoints import PAGES, ROW, checkpoint
from tests.contracts.storage import stored
from tests.support.damage import refusal, storing

ROWS = 40
JOURNAL, LOG, INDEX = "journal.db", "journal.db-wal", "journal.db-shm"

Change = Callable[[Path, Path], object]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create directories as kills leave them: of one engine at two moments, and of another engine."""
    folder = tmp_path_factory.mktemp("killed")

    async def fill(data: Path, *copies: Path) -> None:
        async with storing(data) as storage:
            for number, copy in enumerate(copies):  # a checkpoint is between the two moments
                for _ in range(ROWS):
                    await stored(storage, payload=bytes(number * 2 * 4096 * PAGES // ROWS))
                shutil.copytree(data, copy)

    for name in ("one", "two"):
        (folder / name).mkdir()
    anyio.run(fill, folder / "one", folder / "early", folder / "data")
    anyio.run(fill, folder / "two", folder / "other")
    return folder


def deleted(name: str) -> Change:
    return lambda data, _: (data / name).unlink()


def cut(name: str, share: float) -> Change:
    return lambda data, _: os.truncate(data / name, int((data / name).stat().st_size * share))


def swapped(name: str, source: str) -> Change:
    return lambda data, killed: shutil.copy(killed / source / name, data / name)


LOST: dict[str, tuple[Change, str]] = {
    "deleted log": (deleted(LOG), "is missing or empty, but "),
    "emptied log": (cut(LOG, 0), "is missing or empty, but "),
    "log of an earlier moment": (swapped(LOG, "early"), "is another one than that journal.db needs"),
    "log of another engine": (swapped(LOG, "other"), "journal.db"),
    "deleted journal": (deleted(JOURNAL), "journal.db-wal holds transactions"),
    "journal cut in half": (cut(JOURNAL, 0.5), "journal.db was cut, or the log is another one: it ends after page "),
    "journal of an earlier moment": (swapped(JOURNAL, "early"), "journal.db"),
    "journal of another engine": (swapped(JOURNAL, "other"), "journal.db"),
}


@pytest.mark.parametrize("indexed", [True, False], ids=["with its index", "as a copy without index"])
@pytest.mark.parametrize("name", LOST)
async def test_a_start_without_a_file_that_a_kill_left_is_refused(
    name: str, indexed: bool, killed: Path, tmp_path: Path
) -> None:
    change, words = LOST[name]
    data = Path(shutil.copytree(killed / "data", tmp_path / "data"))
    if not indexed:
        (data / INDEX).unlink()
    change(data, killed)

    assert words in await refusal(data)


async def test_a_log_that_was_cut_before_its_last_commit_is_found_by_its_index(killed: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(killed / "other", tmp_path / "data"))
    cut(LOG, 0.01)(data, killed)

    assert "it ends before the last of its " in await refusal(data)


@pytest.mark.parametrize("without", [(), (INDEX,)])
async def test_a_killed_engine_starts_again_with_all_that_was_stored(
    without: tuple[str, ...], killed: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(killed / "data", tmp_path / "data"))
    for name in without:
        (data / name).unlink()
    for _ in range(2):  # after a kill, and after an ordered end
        async with storing(data) as storage:
            counts = await storage.journal.recover()
            assert counts.backlog[1][0] == 2 * ROWS


@pytest.mark.parametrize("at", ["the copy", "the mark after it"])
@pytest.mark.parametrize("number", [1, 2], ids=["at the start", "in use"])
async def test_an_engine_starts_again_after_a_checkpoint_that_failed(
    at: str, number: int, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, calls = Path(shutil.copytree(killed / "data", tmp_path / "data")), list[int]()

    def fails(database: sqlite3.Connection, index: Any) -> bool:
        calls.append(0)
        if len(calls) != number:
            return checkpoint(database, index)
        database.execute(ROW, (int.from_bytes((data / LOG).read_bytes()[16:20], "big"),))
        if at != "the copy":
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "checkpoint", fails)
        patch.setattr(checkpoints, "PAGES", 1)
        async with storing(data) as storage:
            await stored(storage)
    async with storing(data) as storage:
        counts = await storage.journal.recover()
    assert len(calls) >= number
    assert counts.backlog[1][0] == 2 * ROWS + 1  # a start tries twice
