"""Files of a data directory: they belong together, and are locked by one engine at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.embedded import Engine
from engine.errors import DataDirectoryLocked, DataDirectoryUnusable
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked, marker_of
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.support.damage import change
from tests.support.engine_process import CLEAN, ROOT, functiond

SOURCE = "def handler(event, context):\n    return 1\n"
LOG_HEADER = 32  #: bytes of a write-ahead log before its first frame


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create directories of real engines, each with one function, for tests to copy."""
    folder = tmp_path_factory.mktemp("directories")
    for name in ("stopped", "killed", "other"):
        with engine_on(folder / name) as engine:
            engine.create("one", SOURCE)
            if name == "stopped":
                assert engine.stop() == 0
            else:
                engine.kill(children=True)
    return folder


@pytest.fixture
def stopped(directories: Path, tmp_path: Path) -> Path:
    """Copy the directory of a stopped engine. It has no write-ahead log."""
    return Path(shutil.copytree(directories / "stopped", tmp_path / "stopped"))


@pytest.fixture
def killed(directories: Path, tmp_path: Path) -> Path:
    """Copy the directory of a killed engine. Its tables are in the write-ahead log only."""
    return Path(shutil.copytree(directories / "killed", tmp_path / "killed"))


def engine_of(data: Path) -> Engine:
    settings = {"storage.data_dir": str(data), "storage.free_space": 0, "storage.ballast": 0}
    return Engine(settings={**settings, "executor.isolation": "process"})


async def refusal(data: Path) -> str:
    """Return the reason for which an engine does not start, and check that the directory is unchanged."""
    before = contents(data)
    with pytest.raises(DataDirectoryUnusable) as refused:
        async with engine_of(data).run():
            pass
    assert contents(data) == before
    return str(refused.value)


async def names(data: Path) -> list[str]:
    """Start an engine and return the names of its functions, then stop it."""
    async with engine_of(data).run() as running:
        return [function.name for function in running.catalog.all()]


def contents(data: Path) -> dict[str, bytes]:
    """Read all files except the lock and the log's index, which SQLite rebuilds at each opening."""
    files = {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in ("lock", "journal.db-shm")}


def packages(data: Path) -> list[str]:
    return sorted(name for name in os.listdir(data / "code") if not name.startswith("."))


def application_id(data: Path) -> int:
    """Return the id in the header of the main file."""
    return int.from_bytes((data / "journal.db").read_bytes()[68:72], "big")


def remove_marks(data: Path) -> None:
    """Remove the marks: older engines wrote none."""
    change(data, "PRAGMA application_id = 0", "PRAGMA wal_checkpoint(TRUNCATE)")
    (data / "code" / ".journal").unlink()


# --- copies -------------------------------------------------------------------------------------------------


async def marker(directory: Path) -> str:
    """Return the text that marks processes started by an engine on this directory."""
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            return marker_of(directory, storage.identity.name)


async def test_a_moved_directory_keeps_its_marker_and_a_copy_has_another(tmp_path: Path) -> None:
    directory, copy, moved = tmp_path / "data", tmp_path / "copy", tmp_path / "moved"
    before = await marker(directory)

    shutil.copytree(directory, copy)
    directory.rename(moved)

    assert await marker(moved) == before
    assert await marker(copy) != before


async def test_a_copy_starts_with_all_that_the_original_has(stopped: Path) -> None:
    copy = Path(shutil.copytree(stopped, stopped.with_name("copy")))

    assert (await names(copy), len(packages(copy))) == (["one"], 2)


# --- a missing journal --------------------------------------------------------------------------------------


def emptied(journal: Path) -> None:
    journal.write_bytes(b"")


def without_tables(journal: Path) -> None:
    """Leave a database without tables, as a killed first start does."""
    journal.unlink()
    change(journal.parent, "PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("lose", [Path.unlink, emptied, without_tables])
async def test_code_packages_without_their_journal_are_not_swept(stopped: Path, lose: Callable[[Path], None]) -> None:
    lose(stopped / "journal.db")

    told = await refusal(stopped)

    assert str(stopped / "journal.db") in told
    assert "code/" in told
    assert "restore" in told
    assert len(packages(stopped)) == 2


@pytest.mark.parametrize("lose", [Path.unlink, emptied])
async def test_a_log_of_transactions_without_its_journal_is_kept(killed: Path, lose: Callable[[Path], None]) -> None:
    shutil.rmtree(killed / "code")
    lose(killed / "journal.db")

    assert "journal.db-wal" in await refusal(killed)


async def test_a_restored_journal_has_everything_again(killed: Path) -> None:
    journal = killed / "journal.db"
    content = journal.read_bytes()
    journal.unlink()
    await refusal(killed)

    journal.write_bytes(content)

    assert (await names(killed), len(packages(killed))) == (["one"], 2)


async def test_a_journal_whose_checkpoint_was_interrupted_is_whole_with_its_log(killed: Path) -> None:
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", INTERRUPTED, killed / "journal.db")
    assert await ended.wait() == -signal.SIGXFSZ
    assert (killed / "journal.db").stat().st_size % (1 << 15) == 0

    assert await names(killed) == ["one"]


#: Program that is killed in a checkpoint, before the last of many pages that make the file longer.
INTERRUPTED = """
import os, resource, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("INSERT INTO payload (key, body) VALUES (1, zeroblob(1 << 18))")
limit = (os.path.getsize(sys.argv[1]) // (1 << 15) + 2) << 15
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
database.execute("PRAGMA wal_checkpoint")
"""


# --- another journal ----------------------------------------------------------------------------------------


async def test_a_journal_of_another_program_is_refused_by_its_id(stopped: Path) -> None:
    change(stopped, "PRAGMA application_id = 77", "PRAGMA wal_checkpoint(TRUNCATE)")

    assert "77" in await refusal(stopped)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_tables_of_another_program_are_refused(tmp_path: Path, mode: str) -> None:
    change(tmp_path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE bookmark (url TEXT)")

    assert "bookmark" in await refusal(tmp_path)


async def test_code_packages_of_another_engine_are_not_swept(stopped: Path, directories: Path) -> None:
    for file in (directories / "other").glob("journal.db*"):
        shutil.copy(file, stopped)

    assert "code/" in await refusal(stopped)
    assert len(packages(stopped)) == 2


async def test_the_log_of_another_journal_is_refused(tmp_path: Path, directories: Path) -> None:
    await marker(tmp_path)  # creates a journal
    shutil.copy(directories / "killed" / "journal.db-wal", tmp_path)

    assert "journal.db-wal" in await refusal(tmp_path)


# --- directories without marks ------------------------------------------------------------------------------


async def test_a_directory_without_marks_starts_and_is_marked(stopped: Path, directories: Path) -> None:
    marked = application_id(stopped)
    remove_marks(stopped)

    assert (await names(stopped), len(packages(stopped))) == (["one"], 2)
    assert application_id(stopped) == marked != 0
    for file in (directories / "other").glob("journal.db*"):
        shutil.copy(file, stopped)
    assert "code/" in await refusal(stopped)


def test_a_directory_without_marks_whose_engine_was_killed_starts_too(tmp_path: Path) -> None:
    """Leave all tables in the log, so that the main file identifies nothing."""
    engine = EngineProcess(tmp_path)
    engine.program = ["-c", UNMARKED]
    try:
        engine.start().create("one", SOURCE)
        engine.kill(children=True)
        (tmp_path / "code" / ".journal").unlink()
        assert application_id(tmp_path) == 0

        engine.program = ["-m", "engine"]
        engine.start()
        assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"
        assert engine.stop() == 0
    finally:
        engine.close()

    assert application_id(tmp_path) != 0


#: Program of an engine that writes no mark to its journal.
UNMARKED = """
import sys
from engine.storage.sqlite import database
database.APPLICATION_ID = 0
from engine.cli import main
sys.exit(main())
"""


# --- the first start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [None, b"", bytes(LOG_HEADER)], ids=["no log", "empty log", "log without frames"])
async def test_an_empty_file_in_an_empty_directory_is_a_new_journal(tmp_path: Path, log: bytes | None) -> None:
    (tmp_path / "journal.db").touch()
    (tmp_path / "code" / ".new-0").mkdir(parents=True)
    if log is not None:
        (tmp_path / "journal.db-wal").write_bytes(log)

    assert await names(tmp_path) == []


async def test_a_journal_that_is_lost_without_any_package_is_made_anew(tmp_path: Path) -> None:
    assert await names(tmp_path) == []
    (tmp_path / "journal.db").unlink()

    assert await names(tmp_path) == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from engine.storage.data_directory import locked
from engine.storage import StorageOptions
from engine.storage.sqlite import batch
from engine.storage.sqlite import database

class Dying(batch.WritingConnection):
    \"\"\"Kills the process at one step of SQLite's machine.\"\"\"
    left = 0

    def __init__(self, *values, **options):
        super().__init__(*values, **options)
        self.set_progress_handler(self.step, 1)

    def step(self):
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def start(folder):
    with locked(folder):
        async with database.open_storage(StorageOptions(directory=folder)):
            pass

def run(folder, steps):
    pid = os.fork()
    if pid == 0:
        Dying.left = steps
        asyncio.run(start(folder))
        os._exit(0)
    return os.waitpid(pid, 0)[1]

database.WritingConnection = Dying
steps = 1
while True:
    folder = Path(sys.argv[1]) / str(steps)
    first = run(folder, steps)
    if first == 0:
        break
    print(first, run(folder, 0))
    steps += 1 + steps // 3
"""


@pytest.mark.long
def test_a_first_start_that_is_killed_at_any_step_starts_again(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, env=CLEAN, check=True
    )

    ends = [tuple(map(int, line.split())) for line in told.stdout.splitlines()]
    assert len(ends) > 20
    assert set(ends) == {(signal.SIGKILL, 0)}


# --- the exit code ------------------------------------------------------------------------------------------


def test_the_reason_is_one_line_and_the_exit_code_asks_for_a_change(stopped: Path) -> None:
    (stopped / "journal.db").unlink()

    ended = functiond("serve", "--port", "0", "--data-dir", stopped)

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended
    assert ended.stderr.startswith(f"functiond: {stopped / 'journal.db'}: missing or empty, but code/ holds packages; ")


# --- the lock ------------------------------------------------------------------------------------------------


def test_a_deleted_lock_file_lets_no_second_engine_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engine_on(data) as engine:
        (data / "lock").unlink()
        refused = functiond("serve", "--port", "0", "--data-dir", data)

    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused
    assert refused.stderr.startswith(f"functiond: {data} is in use by process {engine.pid}: stop that process, or ")
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
