"""Only writer of the database. All requests submitted during a commit are stored by the next commit.

Only the writer's task uses the writing connection, so that a cancelled caller cannot interrupt a write. The task itself
is shielded from cancellation. After ``close()``, the task ends when all submitted requests are on disk.

If COMMIT fails, the rows may still appear after a crash. After a disk failure, the writer therefore commits a *fence*:
a transaction of one row that overwrites the remains of the failed commit in the write-ahead log.

- A committed fence proves that the failed batch is not on disk. The callers of the batch get NotStored. Its requests
  with ``retry_until_stored`` are applied again, at growing intervals if the disk stores the fence but not these
  requests.
- Until the fence is committed, new requests are refused at once. If COMMIT failed, the callers of the batch wait up to
  ``max_wait`` seconds for the fence, then get OutcomeUnknown.
- If the fence cannot be committed after a failed fsync, the writer raises JournalBroken. Only a restart, which reads
  the file again, can find out which rows are stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar, cast

import aiosqlite
import structlog
from anyio import TASK_STATUS_IGNORED, CancelScope
from anyio.abc import TaskStatus

from engine.errors import (
    BackupRuns,
    JournalBroken,
    NotStored,
    OutcomeUnknown,
    ShuttingDown,
    StoredDataUnreadable,
    Unavailable,
)
from engine.metrics.histogram import SIZES, Histogram
from engine.model.signal import Signal
from engine.protocols import CopySteps, StorageStatistics
from engine.storage.sqlite.batch import Batch, CallRequest, Statement, WriteRequest, WritingConnection
from engine.storage.sqlite.checkpoints import Checkpoints
from engine.storage.sqlite.copying import Copying, OnStep
from engine.storage.sqlite.damage import is_damage

T = TypeVar("T")
log = structlog.get_logger("functiond.journal")

#: A commit is expensive and a further row is cheap, so a batch waits for concurrent callers. The wait ends after this
#: many turns of the event loop, this many requests, or this many turns in a row without a new request.
GATHER_TURNS, GATHER_LIMIT, GATHER_IDLE_TURNS = 16, 256, 3
#: Seconds for which a busy event loop may keep the GIL from the writer's thread, and seconds for which the loop then
#: yields the GIL.
GIL_YIELD_AFTER, GIL_YIELD = 0.001, 0.005
#: Seconds for which the loop yields while the thread waits for the disk. The first yield lasts as long as a commit on
#: a fast disk. Further yields are short, because a slow disk must not block the loop.
FIRST_SYNC_YIELD, SYNC_YIELD = 0.001, 0.0001
#: Seconds before the first retry after a disk failure. Each further wait is twice as long, up to ``longest_wait``.
FIRST_WAIT = 0.05


class Writer:
    """Writer of one database.

    ``make_room`` is called after a failure of a write or checkpoint, to free disk space, and ``on_recovered`` when they
    succeed again.
    """

    def __init__(
        self,
        database: aiosqlite.Connection,
        *,
        checkpoints: Checkpoints | None = None,
        make_room: Callable[[], object] = lambda: None,
        on_recovered: Callable[[], None] = lambda: None,
        max_wait: float = 5.0,
        longest_wait: float = 2.0,
    ) -> None:
        self._database, self._checkpoints = database, checkpoints
        self._after_commit = checkpoints.after_commit if checkpoints else None
        self._make_room, self._on_recovered = make_room, on_recovered
        self._max_wait = max_wait
        self._longest_wait = longest_wait
        self._pending = Batch()
        self._copying: Copying | None = None  #: running copy of the database, which then applies the batches
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._failure = ""
        self._consecutive_failures = 0  #: batches that failed in a row
        self.broken = False  #: ``run`` has failed, and later requests are not written any more
        self._began = 0.0
        self._sizes = Histogram(SIZES)
        self._seconds = Histogram()
        self.groups_decided: Signal[[]] = Signal()
        #: Number of the batch that is being gathered. Its requests can still be changed.
        self.number = 0

    # --- submitting -----------------------------------------------------------------------------------------

    def submit(self, request: WriteRequest) -> None:
        """Add a request to the next commit.

        Raises NotStored while the disk fails, and ShuttingDown after ``close``. A request with ``retry_until_stored``
        raises neither; such a request is dropped after ``run`` has failed.
        """
        if self.broken and request.retry_until_stored:
            return  # the next start continues from the rows on disk
        if not request.retry_until_stored:
            if self._failure:
                raise NotStored(self._failure)
            if self._closing.is_set():
                raise ShuttingDown
        if not self._pending:
            self._wake.set()
        self._pending.append(request)

    async def call(
        self,
        function: Callable[[WritingConnection], T],
        isolated: Callable[[WritingConnection], T] | None = None,
    ) -> T:
        """Run ``function(connection)`` in the next transaction and return its result after the commit.

        If the function meets a damaged page, the result of ``isolated(connection)`` is returned instead. The second
        function runs outside a transaction, and begins one for each of its writes.

        Writes submitted earlier are done first. Errors of ``function`` are raised. Raises NotStored if the disk failed
        and nothing was stored, OutcomeUnknown if the changes may have been stored, PageDamaged if the function met a
        damaged page, ShuttingDown after ``close``, and StoredDataUnreadable if a table is not as the engine made it.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        self.submit(CallRequest(function, partial(answer, future), isolated))
        try:
            return await future
        except sqlite3.OperationalError as error:  # for example a table that is missing
            raise StoredDataUnreadable("the journal", str(error)) from error

    async def copy_to(self, target: Path, on_step: OnStep) -> CopySteps:
        """Copy the database into the new file ``target``, between batches.

        The copy has all writes that were done before the call. ``on_step`` is called with the pages copied so far and
        all pages. Raises BackupRuns if another copy runs, ShuttingDown if the writer closes, and BackupFailed if the
        file cannot be written. The file is then incomplete.
        """
        source = await self.call(lambda database: database)
        if self._copying is not None:
            raise BackupRuns
        self._copying = copying = Copying(self._database, source, target, on_step)
        try:
            return await copying.run()
        finally:
            self._copying = None

    def statistics(self) -> StorageStatistics:
        checkpoints = self._checkpoints
        return StorageStatistics(
            batch_size=self._sizes.snapshot(),
            commit_seconds=self._seconds.snapshot(),
            in_flight_seconds=perf_counter() - self._began if self._began else 0.0,
            failure=self._failure,
            log_size=checkpoints.log_size if checkpoints else 0,
            checkpoint_age=checkpoints.age if checkpoints else 0.0,
            checkpoint_failure=checkpoints.failure if checkpoints else "",
        )

    # --- the task -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Make later calls of ``submit`` raise ShuttingDown. Let ``run`` return when all requests are on disk."""
        self._closing.set()
        self._wake.set()
        self._stop_copying()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        with CancelScope(shield=True):
            task_status.started()
            try:
                while not (self._closing.is_set() and not self._pending):
                    await self._wake.wait()
                    self._wake.clear()
                    while self._pending:
                        await self._gather()
                        batch, self._pending = self._pending, Batch()
                        self.number += 1
                        await self._write(batch)
            except sqlite3.Error as error:  # a table or row is not as the engine made it: the next start checks them
                self._give_up(error)
                raise JournalBroken(str(error)) from error
            except BaseException as error:
                self._give_up(error)
                raise

    async def _gather(self) -> None:
        """Wait a few turns of the event loop, so that requests of concurrent callers join the next batch.

        A turn without other work takes microseconds, so a single caller is hardly delayed.
        """
        idle = turns = 0
        while idle < GATHER_IDLE_TURNS and turns < GATHER_TURNS and (before := len(self._pending)) < GATHER_LIMIT:
            await asyncio.sleep(0)
            turns += 1
            idle = 0 if len(self._pending) > before else idle + 1

    async def _write(self, batch: Batch) -> None:
        await self._commit(batch)
        if batch.failure is not None:
            await self._recover(batch)
            return
        if self._failure:
            self._note_recovered(len(batch))
        if self._checkpoints is not None and self._checkpoints.note_change():
            if self._checkpoints.failure:
                self._make_room()
            else:
                self._on_recovered()
        if batch.decided:
            self.groups_decided()
        _notify(batch)

    async def _commit(self, batch: Batch) -> None:
        self._began, self._sync_yield = perf_counter(), FIRST_SYNC_YIELD
        batch.after_commit = self._after_commit
        self._yield_gil_later(batch)
        try:
            if self._copying is not None:
                await self._copying.apply(batch)
            else:
                await self._database.executemany("", cast("Any", batch))  # see WritingConnection
        finally:
            self._yield_timer.cancel()
            self._seconds.observe(perf_counter() - self._began)
            self._sizes.observe(len(batch))
            self._began = 0.0

    # A busy event loop retakes the GIL before the writer's thread gets it. Short blocking waits in the loop release the
    # GIL. (A nested function in ``_commit`` would refer to itself, so that only the garbage collector could free each
    # batch. Therefore two methods.)

    def _yield_gil_later(self, batch: Batch) -> None:
        self._yield_timer = asyncio.get_running_loop().call_later(GIL_YIELD_AFTER, self._yield_gil, batch)

    def _yield_gil(self, batch: Batch) -> None:
        seconds = GIL_YIELD
        if batch.syncing:
            seconds, self._sync_yield = self._sync_yield, SYNC_YIELD
        if not batch.finished.wait(seconds):
            self._yield_gil_later(batch)

    # --- when the disk fails --------------------------------------------------------------------------------

    async def _recover(self, batch: Batch) -> None:
        """Commit a fence after a failed batch.

        Callers of the batch get NotStored if the batch is certainly not on disk, otherwise OutcomeUnknown. Requests
        with ``retry_until_stored`` are queued again, before all newer requests.
        """
        failure = batch.failure
        assert failure is not None
        self._failure, self._consecutive_failures = str(failure.error), self._consecutive_failures + 1
        log.error("journal cannot write", problem=self._failure, ambiguous=failure.ambiguous, rows=len(batch))
        callers = Batch(s for s in batch if not s.retry_until_stored)
        kept = Batch(s for s in batch if s.retry_until_stored)
        if not failure.ambiguous:
            _refuse(callers, NotStored(self._failure))
            callers.clear()
        if await self._fence(callers, after_fsync=failure.fsync):
            _refuse(callers, NotStored(self._failure))
            self._pending = Batch([*kept, *self._pending])
            if not self._pending:
                self._note_recovered(0)
            elif self._consecutive_failures > 1:
                await self._wait_for_room()
        else:
            _refuse(callers, OutcomeUnknown(self._failure))

    def _note_recovered(self, rows: int) -> None:
        self._failure, self._consecutive_failures = "", 0
        self._on_recovered()
        log.info("journal writes again", rows=rows)

    async def _wait_for_room(self) -> None:
        """Wait before the next try to store requests that failed although the fence was stored.

        While the writer closes, the requests are dropped instead. The next start of the engine runs their invocations
        again.
        """
        wait = min(FIRST_WAIT * 2 ** min(self._consecutive_failures - 2, 16), self._longest_wait)
        if self._closing.is_set():
            self._refuse_pending()
            log.warning("outcomes not stored; the next start runs these invocations again", rows=len(self._pending))
            self._pending.clear()
        else:
            await self._closes_within(wait)

    async def _fence(self, callers: Batch, *, after_fsync: bool) -> bool:
        """Commit the fence, retrying until it is stored. Return False if the writer is closed first.

        After ``max_wait`` seconds, ``callers`` get OutcomeUnknown. ``after_fsync`` means that the fsync of the batch
        failed. Raises JournalBroken if the fence then fails in any step, if the fsync of the fence fails, or if the
        fence meets a damaged page.
        """
        wait, waited = FIRST_WAIT, 0.0
        while True:
            self._make_room()
            fence = Batch([WriteRequest(((Statement.FENCE, (1,)),))])
            await self._commit(fence)
            if fence.failure is None:
                return True
            if after_fsync or fence.failure.fsync or is_damage(fence.failure.error):
                _refuse(callers, OutcomeUnknown(self._failure))
                raise JournalBroken(self._failure)
            self._refuse_pending()
            if self._closing.is_set():
                return False
            if waited >= self._max_wait:
                _refuse(callers, OutcomeUnknown(self._failure))
                callers.clear()
            if not await self._closes_within(wait):
                waited += wait
                wait = min(wait * 2, self._longest_wait)

    async def _closes_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _give_up(self, error: BaseException) -> None:
        """Set ``broken``, and fail waiting requests, except those with ``retry_until_stored``."""
        self.broken = True
        self._failure = self._failure or repr(error)
        self._refuse_pending()
        self._stop_copying()

    def _stop_copying(self) -> None:
        if self._copying is not None:
            self._copying.stop()

    def _refuse_pending(self) -> None:
        """Fail the requests that wait for the next commit with NotStored, except those with ``retry_until_stored``."""
        _refuse(Batch(s for s in self._pending if not s.retry_until_stored), NotStored(self._failure))
        self._pending = Batch(s for s in self._pending if s.retry_until_stored)


def answer(future: asyncio.Future[Any], request: WriteRequest) -> None:
    """Set the result or error of a request on the caller's future, unless the future was cancelled."""
    if future.cancelled():
        return
    if request.error is None:
        future.set_result(request.value)
    else:
        future.set_exception(request.error)


def _refuse(batch: Batch, error: Unavailable) -> None:
    for request in batch:
        request.error = error
    _notify(batch)


def _notify(batch: Batch) -> None:
    """Call ``done`` of each request in the batch. If some calls raise an exception, raise the last one at the end."""
    bug: Exception | None = None
    for request in batch:
        if request.done is not None:
            try:
                request.done(request)
            except Exception as error:
                bug = error
    if bug is not None:
        raise bug
