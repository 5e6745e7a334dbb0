"""Check of the write-ahead log, on logs that commits, failures, kills and losses of files have left."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from engine.errors import DataDirectoryUnusable
from engine.storage import StorageOptions
from engine.storage.sqlite import checkpoints
from engine.storage.sqlite.checkpoints import PAGES, ROW, checkpoint
from engine.storage.sqlite.database import open_storage
from engine.storage.sqlite.journal_check import log_problem
from tests.support.damage import refusal, storing
from tests.support.programs import program
from tests.support.storages import stored

HEADER, FRAME, PAGE = 32, 24, 4096
#: Lets the sync of a file fail while the file ``$FAIL`` exists.
SHIM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int sync_of(long number, int descriptor) {
    if (access(getenv("FAIL"), F_OK) == 0) { errno = EIO; return -1; }
    return syscall(number, descriptor);
}
int fsync(int descriptor) { return sync_of(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return sync_of(SYS_fdatasync, descriptor); }
"""
#: Runs random histories of commits, failed commits and checkpoints, then ends without closing the databases. Prints for
#: each history the number of frames after each commit since the log was last begun anew.
HISTORIES = """
import json, os, sqlite3, sys
from random import Random

folder, seeds, fail = sys.argv[1], json.loads(sys.argv[2]), os.environ["FAIL"]

def frames(path):
    return int.from_bytes(open(path + "-shm", "rb").read()[16:20], sys.byteorder)

def salts(path):
    return open(path + "-shm", "rb").read()[32:40]

kept = []
for seed in seeds:
    random, path = Random(seed), f"{folder}/{seed}.db"
    db = sqlite3.connect(path, isolation_level=None)
    kept.append(db)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    begun, ends = salts(path), [frames(path)]
    steps = random.choices(("commit", "commit", "fail", "fail", "checkpoint"), k=random.randint(1, 12))
    for kind in (*steps, "fence"):
        if kind == "checkpoint":
            db.execute("PRAGMA wal_checkpoint(RESTART)")
            continue
        if kind == "fail":
            open(fail, "w").close()
        try:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(1 if kind == "fence" else random.randint(1, 8)):
                db.execute("INSERT INTO t (b) VALUES (randomblob(?))", (random.randint(10, 9000),))
            db.execute("COMMIT")
            if salts(path) != begun:
                begun, ends = salts(path), []
            ends.append(frames(path))
        except sqlite3.OperationalError:
            assert kind == "fail"
            db.rollback()
        if kind == "fail":
            os.unlink(fail)
    rows = db.execute("SELECT count(*) FROM t").fetchone()[0]
    print(json.dumps([seed, ends, rows]), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        [program("gcc"), "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c"], check=True, timeout=60
    )
    return folder / "shim.so"


def histories(shim: Path, folder: Path, seeds: list[int]) -> Iterator[tuple[Path, list[int], int]]:
    """Yield path, ends of acknowledged commits and number of rows of databases that were left as a kill leaves them."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FAIL": str(folder / "fail")}
    command = [sys.executable, "-c", HISTORIES, str(folder), json.dumps(seeds)]
    output = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True).stdout
    for line in output.splitlines():
        seed, ends, rows = json.loads(line)
        yield folder / f"{seed}.db", ends, rows


def copied(path: Path, folder: Path) -> Path:
    """Return a copy of a database with its log, but without the index of the log."""
    copy = folder / "copy.db"
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    Path(f"{copy}-shm").unlink(missing_ok=True)
    return copy


def flip(path: Path, at: int) -> None:
    with Path(f"{path}-wal").open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def frame_at(number: int) -> int:
    return HEADER + (number - 1) * (FRAME + PAGE)


def test_logs_with_rests_of_failed_commits_are_sound(shim: Path, tmp_path: Path) -> None:
    rests = 0
    for path, ends, rows in histories(shim, tmp_path, list(range(40))):
        copy = copied(path, tmp_path)
        size = Path(f"{copy}-wal").stat().st_size
        rests += size > frame_at(ends[-1] + 1)

        assert log_problem(copy) == "", path
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT count(*) FROM t").fetchone() == (rows,), path
    assert rests > 10


def test_a_bad_frame_before_a_later_commit_is_found_and_one_in_the_last_commit_is_not(
    shim: Path, tmp_path: Path
) -> None:
    random, found, ignored = Random(1), 0, 0
    for path, ends, _ in histories(shim, tmp_path, list(range(100, 140))):
        for number in range(1, ends[-1] + 1):
            copy = copied(path, tmp_path)
            flip(copy, frame_at(number) + FRAME + random.randrange(PAGE))
            if len(ends) > 1 and number <= ends[-2]:
                assert "damaged" in log_problem(copy), (path, number, ends)
                found += 1
            else:
                assert log_problem(copy) == "", (path, number, ends)
                ignored += 1
    assert min(found, ignored) > 20


def logged(folder: Path, commits: int = 4) -> Path:
    """Return a database with commits of one row each in its log, left as a kill leaves it."""
    source, path = folder / "source.db", folder / "a.db"
    with closing(sqlite3.connect(source, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(commits):
            database.execute("INSERT INTO t VALUES (?)", (number,))
        for end in ("", "-wal"):
            shutil.copy(f"{source}{end}", f"{path}{end}")
    return path


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20, FRAME], ids=["page", "salt1", "salt2", "sum1", "sum2", "content"])
def test_each_field_of_a_frame_is_checked(tmp_path: Path, at: int) -> None:
    path = logged(tmp_path)
    flip(path, frame_at(2) + at)

    assert log_problem(path).startswith("frame 2 is damaged, and the commits from frame 2 to 3")


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_commit_whose_page_count_reads_0_is_found_before_one_other_commit(tmp_path: Path, damaged: int) -> None:
    path = logged(tmp_path, damaged + 1)
    with Path(f"{path}-wal").open("r+b") as file:
        file.seek(frame_at(damaged) + 4)
        assert file.read(4) != bytes(4)
        file.seek(frame_at(damaged) + 4)
        file.write(bytes(4))

    problem = f"frame {damaged} is damaged, and the commits from frame {damaged} to {damaged + 1}"
    assert log_problem(path).startswith(problem)


def test_several_bad_frames_do_not_hide_later_commits(tmp_path: Path) -> None:
    path = logged(tmp_path, 6)
    for number in (2, 3):
        flip(path, frame_at(number) + FRAME)

    assert log_problem(path).startswith("frame 2 is damaged")


def test_a_torn_transaction_of_several_pages_is_no_problem(tmp_path: Path) -> None:
    """Any page of the last transaction may be missing: the disk writes them in any order."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("INSERT INTO t VALUES (zeroblob(20000))")
        copy = copied(path, tmp_path)
    whole = Path(f"{copy}-wal").read_bytes()
    frames = (len(whole) - HEADER) // (FRAME + PAGE)
    assert frames > 4
    for number in range(1, frames + 1):
        for begin, end in ((0, FRAME + PAGE), (0, 8), (4, 8), (8, FRAME), (FRAME, FRAME + PAGE)):
            torn = bytearray(whole)
            at = frame_at(number)
            torn[at + begin : at + end] = bytes(end - begin)
            Path(f"{copy}-wal").write_bytes(torn)
            assert log_problem(copy) == "", (number, begin, end)


def test_a_torn_end_is_no_problem(tmp_path: Path) -> None:
    path = logged(tmp_path)
    whole = Path(f"{path}-wal").read_bytes()
    for size in (frame_at(4) + 100, frame_at(4) + 3000, frame_at(2) + 10, HEADER, 0):
        Path(f"{path}-wal").write_bytes(whole[:size])
        assert log_problem(path) == ""


def test_frames_from_before_the_log_was_begun_anew_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (a)")
        db.execute("INSERT INTO t VALUES (0)")
        for _ in range(20):  # each is one frame, which continues the one before it
            db.execute("UPDATE t SET a = a + 1")
        db.execute("PRAGMA wal_checkpoint(RESTART)")
        for _ in range(12):
            db.execute("UPDATE t SET a = a + 1")
            assert log_problem(copied(path, tmp_path)) == ""


def test_a_damaged_header_is_a_problem(tmp_path: Path) -> None:
    path = logged(tmp_path)
    flip(path, 18)

    assert log_problem(path) == "its header is damaged"


async def test_the_start_is_refused_while_later_commits_would_be_lost(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    async with open_storage(StorageOptions(directory=data)) as storage:
        for number in range(5):
            await storage.store("test").write("table", put={str(number): b"x" * 100})
        shutil.copytree(data, copy)
    index = await anyio.Path(f"{copy}/journal.db-shm").read_bytes()
    flip(copy / "journal.db", frame_at(int.from_bytes(index[16:20], sys.byteorder) - 2) + 200)

    with pytest.raises(DataDirectoryUnusable, match=r"write-ahead log.*would be lost.*functiond restore"):
        async with open_storage(StorageOptions(directory=copy)):
            pass


# --- lost files ----------------------------------------------------------------------------------------------

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
