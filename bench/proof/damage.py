"""Damaged data directories: files that are missing, foreign, cut or of another copy. For damaged pages, see ``cold``.

Each case says how a start on such a directory must end: the engine goes on, or refuses with a certain message.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from bench.proof.checker import recover
from bench.proof.lives import ENVIRONMENT, Violation, temporary
from bench.proof.recording import Calls, Recorder
from bench.server import Engine, ServerFailed
from engine.cli.output import RESTART, USAGE

PAGE = 4096


class Sources(Struct, frozen=True, kw_only=True):
    """Directories of two engines. The first was killed and has a write-ahead log; the second has none."""

    killed: Path
    other: Path


class Case(Struct, frozen=True, kw_only=True):
    name: str
    damage: Callable[[Path, Sources], object]
    refusal: str = ""  #: part of the message with which the start ends; empty: the engine goes on
    read: int = 0  #: number of the first read that fails at a start of the engine, with all after it; 0: none
    code: int = USAGE  #: of the exit, if the start is refused


# --- damage -------------------------------------------------------------------------------------------------


def without(*names: str) -> Callable[[Path, Sources], object]:
    def remove(data: Path, sources: Sources) -> None:
        for name in names:
            path = data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    return remove


def emptied(data: Path, sources: Sources) -> None:
    (data / "journal.db").write_bytes(b"")


def text(name: str) -> Callable[[Path, Sources], object]:
    return lambda data, sources: (data / name).write_bytes(b"neither a database nor a log\n" * 400)


def text_only(data: Path, sources: Sources) -> None:
    (data / "journal.db-wal").unlink()
    text("journal.db")(data, sources)


def folder(name: str) -> Callable[[Path, Sources], object]:
    def replace(data: Path, sources: Sources) -> None:
        (data / name).unlink(missing_ok=True)
        (data / name).mkdir()

    return replace


def with_index(damage: Callable[[Path, Sources], object]) -> Callable[[Path, Sources], object]:
    """Return the function that damages a directory with the index of the log that a killed engine leaves."""

    def indexed(data: Path, sources: Sources) -> None:
        with temporary() as scratch:
            copy = Path(shutil.copytree(data, scratch / "copy"))
            with closing(sqlite3.connect(copy / "journal.db")) as database:
                database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                shutil.copy(copy / "journal.db-shm", data)
        damage(data, sources)

    return indexed


def cut(name: str, share: float) -> Callable[[Path, Sources], object]:
    """Return the function that cuts a file to a share of its pages, or of the log's frames."""
    return lambda data, sources: os.truncate(data / name, int((data / name).stat().st_size * share) & -PAGE)


def flipped(name: str, position: int) -> Callable[[Path, Sources], object]:
    """Return the function that flips a bit. The log has no newer version of a page in the database."""

    def flip(data: Path, sources: Sources) -> None:
        if name == "journal.db":
            change("PRAGMA wal_checkpoint(TRUNCATE)")(data, sources)
        content = bytearray((data / name).read_bytes())
        content[position] ^= 4
        (data / name).write_bytes(content)

    return flip


def of_another_moment(data: Path, sources: Sources) -> None:
    """Let the log be that of the same engine after a checkpoint."""
    with temporary() as scratch:
        copy = Path(shutil.copytree(data, scratch / "copy"))
        with closing(sqlite3.connect(copy / "journal.db", isolation_level=None)) as database:
            database.execute("PRAGMA wal_checkpoint(RESTART)")
            database.execute("UPDATE tally SET rows = rows + 1")
            shutil.copy(copy / "journal.db-wal", data)


def of_another(data: Path, sources: Sources) -> None:
    shutil.copy(sources.other / "journal.db", data / "journal.db")


def wholly_of_another(data: Path, sources: Sources) -> None:
    of_another(data, sources)
    (data / "journal.db-wal").unlink()


def foreign(data: Path, sources: Sources) -> None:
    for file in data.glob("journal.db*"):
        file.unlink()
    change("CREATE TABLE notes (text)")(data, sources)


def change(*statements: str) -> Callable[[Path, Sources], object]:
    def execute(data: Path, sources: Sources) -> None:
        with closing(sqlite3.connect(data / "journal.db", isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    return execute


# --- cases --------------------------------------------------------------------------------------------------

DAMAGED = "the write-ahead log cannot be used"
LOST, LOG = "missing or empty, but code/ holds packages", "missing or empty, but journal.db-wal holds transactions"
CASES = (
    Case(name="no journal, but its log", damage=without("journal.db"), refusal=LOG),
    Case(name="an empty journal, but its log", damage=emptied, refusal=LOG),
    Case(name="neither journal nor log, but code", damage=without("journal.db", "journal.db-wal"), refusal=LOST),
    Case(name="text in place of journal and log", damage=text_only, refusal="not a database"),
    Case(name="a folder in place of the journal", damage=folder("journal.db"), refusal="journal.db"),
    Case(name="a folder in place of the log", damage=folder("journal.db-wal"), refusal="journal.db-wal"),
    Case(name="a folder in place of the lock", damage=folder("lock"), refusal="lock"),
    Case(name="a database of another program", damage=foreign, refusal="a database of another program"),
    Case(name="the journal of another engine", damage=wholly_of_another, refusal="in code/ belong to journal"),
    Case(name="the log of another engine", damage=of_another, refusal="restore"),
    Case(
        name="a log deleted after a kill", damage=with_index(without("journal.db-wal")), refusal="missing or empty, but"
    ),
    Case(name="a deleted log and index", damage=without("journal.db-wal"), refusal="journal.db needs"),
    Case(name="a log cut to a half", damage=with_index(cut("journal.db-wal", 0.5)), refusal="it ends before the last"),
    Case(name="a flipped bit in a page of the log", damage=flipped("journal.db-wal", 32 + 24 + 99), refusal=DAMAGED),
    Case(name="a flipped bit in a frame's header", damage=flipped("journal.db-wal", 32 + 5), refusal=DAMAGED),
    Case(name="a flipped bit in the log's header", damage=flipped("journal.db-wal", 9), refusal=DAMAGED),
    Case(name="the log of another moment", damage=of_another_moment, refusal="the log is another one"),
    Case(name="a journal cut to a half", damage=with_index(cut("journal.db", 0.5)), refusal="functiond recover"),
    Case(name="a flipped bit in page 1", damage=flipped("journal.db", 17), refusal="functiond recover"),
    Case(
        name="a log that cannot be read", damage=lambda data, sources: None, read=4, code=RESTART, refusal="then start"
    ),
    Case(name="a journal of a newer schema", damage=change("PRAGMA user_version = 9999"), refusal="newer functiond"),
    Case(name="a missing table", damage=change("DROP TABLE payload"), refusal="payload"),
    Case(name="a missing index", damage=change("DROP INDEX ready"), refusal="ready"),
    Case(name="text in place of the log's index", damage=text("journal.db-shm")),
    Case(name="no lock", damage=without("lock")),
    Case(name="no code", damage=without("code")),
    Case(name="no mark of the packages", damage=without("code/.journal")),
    Case(name="no files of instances", damage=without("tmp")),
)


def prepare_sources(folder: Path, killed: Path) -> Sources:
    """Copy the directory of a killed engine, and create another one."""
    sources = Sources(killed=folder / "killed", other=folder / "other")
    shutil.copytree(killed, sources.killed, ignore=shutil.ignore_patterns("journal.db-shm"))
    sources.other.mkdir()
    if problem := recover(sources.other):
        raise ServerFailed(problem)
    return sources


def run_cases(sources: Sources, cases: Sequence[Case] = CASES, *, start: bool) -> Iterator[list[Violation]]:
    """Yield the violations of each case, at a start of the engine or only at its recovery, where no read fails."""
    for case in cases if start else [case for case in cases if not case.read]:
        with temporary() as scratch:
            data = Path(shutil.copytree(sources.killed, scratch / "data"))
            case.damage(data, sources)
            problem = _start(data, case) if start else recover(data)
        if case.refusal not in problem or bool(problem) != bool(case.refusal) or "the exit code" in problem:
            expected = f"a refusal with {case.refusal!r}" if case.refusal else "a start"
            outcome = f"found: {problem or 'a start'}"
            yield [Violation(where=f"damage, {case.name}", problem=f"expected {expected}, {outcome}")]
        else:
            yield []


def _start(data: Path, case: Case) -> str:
    """Return the end of the log of a start that is refused, with another exit code than the expected one."""
    recorder = Recorder(data.parent, data, record=False) if case.read else None
    if recorder:
        recorder.fail(Calls.READ, case.read, errno.EIO, repeat=True)
    server = Engine(data, **ENVIRONMENT, **(recorder.environment if recorder else {}))
    try:
        server.wait_until_serving()
        server.stop()
        return ""
    except ServerFailed as failure:
        code = server.wait()
        return str(failure) if code == case.code else f"the exit code {code}: {failure}"
    finally:
        server.kill()
        if recorder:
            recorder.close()
