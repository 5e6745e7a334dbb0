"""Copy of the database while it is written: the writer's connection copies in short steps, between the batches.

SQLite adds a write to a running backup only if the connection of the backup made it. After a write over another
connection the backup starts again, and a reader with a snapshot of the whole copy would keep the write-ahead log
from restarting. Therefore one call in the writer's thread makes all steps, and applies waiting batches between them.

The event loop allows each step. After every ``SYNC_PAGES`` pages it first waits until they are on disk, because an
fsync of the log would wait for them too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any, cast

import aiosqlite
import anyio
import anyio.to_thread

from engine.errors import BackupFailed, ShuttingDown
from engine.protocols import CopySteps
from engine.storage.sqlite.batch import Batch

PAGES = 16  #: pages of a step: 64 KiB take a tenth of a millisecond, or a few if they come from a slow disk
SYNC_PAGES = 1024  #: pages after which the copy is synced to disk
SLOW = 0.005  #: seconds after which a step counts as slow
PAUSE_PAGES, PAUSE = 64, 0.001  #: pages after which the copy leaves the processor to others, and seconds of that pause

#: Pages copied so far, and pages of the database.
OnStep = Callable[[int, int], None]


class _Order(Enum):
    GO = "make the next step"
    STOP = "end the copy"


class _Stopped(Exception):
    """End of a copy that was stopped before it was complete."""


class Copying:
    """Copy of the database into the new file ``target``.

    ``database`` is the writing connection and ``source`` the same connection as its thread knows it. The writer passes
    batches to ``apply`` instead of the connection while the copy runs. ``on_step`` is called after each step.
    """

    def __init__(
        self, database: aiosqlite.Connection, source: sqlite3.Connection, target: Path, on_step: OnStep
    ) -> None:
        self._database, self._source, self._target, self._on_step = database, source, target, on_step
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[_Order | tuple[Batch, asyncio.Future[None]]] = SimpleQueue()
        self._stepped = asyncio.Event()
        self._copied = self._pages = 0
        self._backup: asyncio.Future[None] | None = None
        self._began = 0.0
        self._longest, self._made, self._slow = 0.0, 0, 0

    async def run(self) -> CopySteps:
        """Copy the database. On return the copy is on disk.

        Raises BackupFailed if the copy cannot be written, and ShuttingDown after ``stop``. The file is then incomplete.
        """
        try:
            with closing(await anyio.to_thread.run_sync(_Target, self._target)) as target:
                await self._copy(target)
                await anyio.to_thread.run_sync(target.sync)
                return CopySteps(made=self._made, slow=self._slow, longest=self._longest)
        except (OSError, sqlite3.Error) as error:
            raise BackupFailed(str(self._target), error) from error

    def stop(self) -> None:
        """End the copy after the current step."""
        self._orders.put(_Order.STOP)

    async def apply(self, batch: Batch) -> None:
        """Apply a batch on the writer's thread, between two steps if the copy runs."""
        if self._backup is not None and not self._backup.done():
            applied: asyncio.Future[None] = self._loop.create_future()
            self._orders.put((batch, applied))
            await asyncio.wait((applied, self._backup), return_when=asyncio.FIRST_COMPLETED)
            if applied.done():
                return applied.result()
        if not batch.finished.is_set():  # the copy ended before it
            await self._database.executemany("", cast("Any", batch))  # see WritingConnection
        return None

    # --- in the event loop ----------------------------------------------------------------------------------

    async def _copy(self, target: _Target) -> None:
        self._began = perf_counter()
        call = self._database.backup(target.database, pages=PAGES, progress=self._between_steps, sleep=0)
        self._backup = backup = asyncio.ensure_future(call)
        backup.add_done_callback(lambda _: self._stepped.set())
        try:
            await self._allow_steps(backup, target)
        finally:
            self._orders.put(_Order.STOP)
            with anyio.CancelScope(shield=True):
                await asyncio.wait((backup,))
            problem = backup.exception()
        if problem is not None:
            raise ShuttingDown if isinstance(problem, _Stopped) else problem

    async def _allow_steps(self, backup: asyncio.Future[None], target: _Target) -> None:
        synced = paused = 0
        while True:
            await self._stepped.wait()
            self._stepped.clear()
            self._on_step(self._copied, self._pages)
            if backup.done():
                return
            if not synced <= self._copied < synced + SYNC_PAGES:  # fewer after a rollback, which starts the copy anew
                await anyio.to_thread.run_sync(target.sync)
                synced = paused = self._copied
            elif self._copied >= paused + PAUSE_PAGES:
                await asyncio.sleep(PAUSE)
                paused = self._copied
            self._orders.put(_Order.GO)

    def _note_step(self, copied: int, pages: int) -> None:
        self._copied, self._pages = copied, pages
        self._stepped.set()

    # --- in the writer's thread -----------------------------------------------------------------------------

    def _between_steps(self, status: int, remaining: int, pages: int) -> None:
        seconds = perf_counter() - self._began  # includes the wait for the GIL after the step
        self._made += 1
        self._slow += seconds > SLOW
        self._longest = max(self._longest, seconds)
        self._loop.call_soon_threadsafe(self._note_step, pages - remaining, pages)
        if status == sqlite3.SQLITE_DONE:
            return
        while (order := self._orders.get()) is not _Order.GO:
            if isinstance(order, _Order):
                raise _Stopped
            self._apply(*order)
        self._began = perf_counter()

    def _apply(self, batch: Batch, applied: asyncio.Future[None]) -> None:
        error: BaseException | None = None
        try:
            self._source.executemany("", cast("Any", batch))
        except BaseException as problem:  # a bug, which must end the writer and not the copy
            error = problem
        self._loop.call_soon_threadsafe(_resolve, applied, error)


class _Target:
    """New database file, without a journal of its own: an incomplete copy is deleted."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE"
        )

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        self.database.close()
        os.close(self._descriptor)


def _resolve(applied: asyncio.Future[None], error: BaseException | None) -> None:
    if applied.cancelled():
        return
    if error is None:
        applied.set_result(None)
    else:
        applied.set_exception(error)
