"""Connections to the real database of a simulated process: without threads, on a disk that fails, and that crashes.

Calls run in the simulated event loop, after a simulated time. A crash may come between two callbacks, as everywhere in
a simulation, or right before or after any COMMIT. The files are then copied as they are, and the next process opens the
copy, so that it finds what a killed engine leaves.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import aiosqlite

from bench.proof.simulation.loop import Crash, SimulatedLoop
from bench.proof.simulation.storage import COMMIT, FAILURE, SLOW_COMMIT
from engine.storage.sqlite.batch import Batch, Statement, WritingConnection

FILES = ("journal.db", "journal.db-wal")


#: Share of the batches with a second transaction that meet a crash between both. The engine makes no such batch.
BETWEEN = 0.3


class Disk:
    """Disk of one process, with its data directory. ``on_commit`` is called with each batch that is on disk."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.folder, self.random = folder, random
        self.loop: SimulatedLoop | None = None
        self.on_commit: Callable[..., None] = lambda batch, crashed=False: None
        self.failing, self.fsync, self.ambiguous = "", False, False
        self.doubtful: Batch | None = None  #: failed in COMMIT; a crash may show it, until another commit succeeds
        self.armed: Callable[[], None] | None = None  #: called at the next COMMIT for which callers wait
        self.crash_at = 0  #: number of the COMMIT at which the process crashes; 0: at none
        self.commits = 0
        self._committed: Batch | None = None  #: batch that is being applied, after its first COMMIT
        self.dead = False
        self.kept: Path | None = None  #: copy of the files at the crash

    def begin(self) -> None:
        if self.failing and not self.ambiguous:
            raise _error(FAILURE, sqlite3.SQLITE_FULL)

    def commit(self, batch: Batch, commit: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Run a COMMIT, or crash before or after it, or fail."""
        if self.dead:
            raise _error("the process has crashed", sqlite3.SQLITE_IOERR)
        if self.armed is not None and not all(request.retry_until_stored for request in batch):
            self.armed()
            self.armed = None
        if self.failing:
            if self.ambiguous and not _is_fence(batch) and (self.doubtful is None or self.random.random() < 0.3):
                self.doubtful = Batch(batch)
            raise _error(FAILURE, sqlite3.SQLITE_IOERR_FSYNC if self.fsync else sqlite3.SQLITE_IOERR_WRITE)
        self.commits += 1
        crashes = self.commits == self.crash_at
        if crashes and self.random.random() < 0.5:
            self._crash()
        if self._committed is batch and self.loop is not None and self.random.random() < BETWEEN:
            self.on_commit(batch, crashed=True)
            self._crash()
        done = commit()
        self.doubtful, self._committed = None, batch
        if crashes:
            self.on_commit(batch, crashed=True)
            self._crash()
        return done

    def applied(self, batch: Batch) -> None:
        """Note that a batch was applied, and is on disk unless it has failed."""
        self._committed = None
        if batch.failure is None and not self.dead:
            self.on_commit(batch)

    def _crash(self) -> None:
        self.keep()
        assert self.loop is not None
        self.loop.crash_soon(1)
        raise Crash

    def keep(self) -> Path:
        """Copy the files as they are, unless that was done, and let the process have no effect from now on."""
        if self.kept is None:
            self.dead, self.kept = True, self.folder.with_name(f"{int(self.folder.name) + 1}")
            self.kept.mkdir()
            for name in FILES:
                if (self.folder / name).exists():
                    shutil.copy(self.folder / name, self.kept / name)
        return self.kept


def _error(text: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def _is_fence(batch: Batch) -> bool:
    return all(statement is Statement.FENCE for request in batch for statement, _ in request.rows) and all(
        request.rows for request in batch
    )


class Writing(WritingConnection):
    """Writing connection of the engine, whose commits are those of a simulated disk."""

    def __init__(self, *arguments: Any, disk: Disk, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._disk = disk
        self._batch: Batch | None = None

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        if not isinstance(parameters, Batch):
            return super().executemany(sql, parameters)
        self._batch = parameters
        try:
            done = super().executemany(sql, parameters)
        finally:
            self._batch = None
        self._disk.applied(parameters)
        return done

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self._batch is not None:
            if sql == "COMMIT":
                return self._disk.commit(self._batch, partial(super().execute, sql))
            if sql == "BEGIN IMMEDIATE":
                self._disk.begin()
        return super().execute(sql, *parameters)


class InlineConnection:
    """Connection with the methods of aiosqlite that the engine uses."""

    def __init__(self, disk: Disk, opened: ExitStack, database: Path | str, options: dict[str, Any]) -> None:
        self._disk, self._opened, self._path, self._options = disk, opened, database, options
        self._database: Any = None
        self._writes = "factory" in options
        self._thread = self  #: the engine joins the thread of a connection that could not be opened

    def join(self) -> None:
        pass

    def __await__(self) -> Iterator[Any]:
        return self._open().__await__()

    async def _open(self) -> InlineConnection:
        options = dict(self._options)
        if self._writes:
            factory = options["factory"]
            given = factory.keywords if isinstance(factory, partial) else {}
            options["factory"] = partial(Writing, disk=self._disk, **given)
        self._database = sqlite3.connect(self._path, **options)
        self._opened.callback(self._database.close)
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Any:
        return self._database.execute(sql, parameters)

    async def executescript(self, sql: str) -> Any:
        return self._database.executescript(sql)

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        if isinstance(parameters, Batch):
            random = self._disk.random
            await asyncio.sleep(random.uniform(0.0, SLOW_COMMIT if random.random() < 0.01 else COMMIT))
        return self._database.executemany(sql, parameters)

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] = ()) -> Any:
        if not self._writes:
            await asyncio.sleep(self._disk.random.choice((0.0, 0.001)))
        return self._database.execute(sql, parameters).fetchall()

    async def close(self) -> None:
        self._database.close()


@contextmanager
def inline(disk: Disk) -> Iterator[None]:
    """Open all connections of the engine on a simulated disk. The end of the block closes what a crash left open."""

    def connect(database: Path | str, **options: Any) -> InlineConnection:
        return InlineConnection(disk, opened, database, options)

    with (
        ExitStack() as opened,
        patch.object(aiosqlite, "connect", connect),
        patch("engine.storage.sqlite.writer.GIL_YIELD_AFTER", 3600.0),  # no thread waits for the GIL
    ):
        yield
