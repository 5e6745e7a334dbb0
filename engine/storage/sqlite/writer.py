"""The one task that writes: whatever was submitted while the last commit was under way is the next commit, with all
who are on their way by then.

Nobody else holds the connection, so a cancelled caller can leave nothing half done. The task is never cancelled
within a commit; it ends by ``close()``, when all that was submitted is on disk.

When the disk fails (mechanics: an error from COMMIT leaves open whether a crash would bring the rows back) the
writer commits a *fence*, a one-row transaction that overwrites what may lie in the log. Once it is in, the batch is
certainly absent: its callers hear NotStored, what must not be lost is applied again, each time later if it needs more
room than a fence. Until that is in, new submissions are refused at once. Callers of an ambiguous batch wait
``max_wait`` seconds for the fence, then hear OutcomeUnknown. If the fence cannot be committed after a failed fsync,
only a restart that reads the file can tell: JournalBroken.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, cast

import aiosqlite
import structlog
from anyio import TASK_STATUS_IGNORED, CancelScope
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import NotStored, OutcomeUnknown, ShuttingDown, Unavailable
from engine.metrics.histogram import SIZES, Distribution, Histogram
from engine.storage.sqlite.batch import Batch, Statement, WriteRequest

T = TypeVar("T")
log = structlog.get_logger("functiond.journal")

#: A commit costs much and a row of it little, so it lets those join who are on their way: for so many turns of the
#: loop, up to so many submissions; and after a few turns that brought nobody, nobody is coming.
GATHER_TURNS, GATHER_LIMIT, GATHER_IDLE_TURNS = 16, 256, 3
#: How long a busy loop lets the writer's thread starve before it stands aside, and for how long (seconds).
GIL_YIELD_AFTER, GIL_YIELD = 0.001, 0.005
#: Likewise while the thread waits for the disk: once as long as a fast one takes; a slow one must not hold up the loop.
FIRST_SYNC_YIELD, SYNC_YIELD = 0.001, 0.0001
#: Seconds between two tries on a disk that refuses; each is twice the one before.
FIRST_WAIT = 0.05


class JournalBroken(Exception):
    """The file must be read anew: end the process and start again."""


class WriterStatistics(Struct, frozen=True, kw_only=True):
    batch_size: Distribution
    commit_seconds: Distribution
    in_flight_seconds: float  #: age of the commit under way, 0 if none
    waiting: int  #: submissions gathered for the next commit
    trouble: str  #: empty when the disk takes what it is given


class Writer:
    def __init__(self, database: aiosqlite.Connection, *, max_wait: float = 5.0, longest_wait: float = 2.0) -> None:
        self._database = database
        self._max_wait = max_wait
        self._longest_wait = longest_wait
        self._pending = Batch()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._trouble = ""
        self._consecutive_failures = 0  #: batches in a row that the disk refused
        self._broken = False
        self._began = 0.0
        self._sizes = Histogram(SIZES)
        self._seconds = Histogram()
        #: Grows when a batch is taken: a submission noted under the present number can still be changed.
        self.number = 0
        #: Called when the disk is full, to make room.
        self.make_room: Callable[[], None] = lambda: None
        #: Called when it takes what it is given again.
        self.room_again: Callable[[], None] = lambda: None

    # --- submitting -----------------------------------------------------------------------------------------

    def submit(self, request: WriteRequest) -> None:
        """Make it part of the next commit. Raises NotStored or ShuttingDown at once if there will be none."""
        if self._broken and request.retry_until_stored:
            return  # the file is read anew by the next start, which finds the row as it was
        if not request.retry_until_stored:
            if self._trouble:
                raise NotStored(self._trouble)
            if self._closing.is_set():
                raise ShuttingDown
        self._pending.append(request)
        self._wake.set()

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function(connection)`` inside the next transaction, behind all that was submitted before."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        self.submit(WriteRequest((), call=function, done=partial(answer, future)))
        return await future

    @property
    def broken(self) -> bool:
        """Nothing will be written any more: ``run`` ended with an error."""
        return self._broken

    def statistics(self) -> WriterStatistics:
        return WriterStatistics(
            batch_size=self._sizes.snapshot(),
            commit_seconds=self._seconds.snapshot(),
            in_flight_seconds=perf_counter() - self._began if self._began else 0.0,
            waiting=len(self._pending),
            trouble=self._trouble,
        )

    # --- the task -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let ``run`` end once everything submitted is on disk."""
        self._closing.set()
        self._wake.set()

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
            except BaseException as error:
                self._give_up(error)
                raise

    async def _gather(self) -> None:
        """Never idle: an empty turn takes microseconds, and what fills one had to be done in any case."""
        still = turns = 0
        while still < GATHER_IDLE_TURNS and turns < GATHER_TURNS and (before := len(self._pending)) < GATHER_LIMIT:
            await asyncio.sleep(0)
            turns += 1
            still = 0 if len(self._pending) > before else still + 1

    async def _write(self, batch: Batch) -> None:
        await self._commit(batch)
        if batch.trouble is not None:
            await self._recover(batch)
            return
        if self._trouble:
            self._note_recovered(len(batch))
        _notify(batch)

    async def _commit(self, batch: Batch) -> None:
        self._began, self._sync_yield = perf_counter(), FIRST_SYNC_YIELD
        self._stand_aside_later(batch)
        try:
            await self._database.executemany("", cast("Any", batch))  # see WritingConnection
        finally:
            self._gil_yield.cancel()
            self._seconds.observe(perf_counter() - self._began)
            self._sizes.observe(len(batch))
            self._began = 0.0

    # A busy loop takes the GIL back before the writer's thread gets it: now and then, wait for the thread, for real.
    # (Two methods, since a function within ``_commit`` would refer to itself, and keep each batch for the collector.)

    def _stand_aside_later(self, batch: Batch) -> None:
        self._gil_yield = asyncio.get_running_loop().call_later(GIL_YIELD_AFTER, self._stand_aside, batch)

    def _stand_aside(self, batch: Batch) -> None:
        seconds = GIL_YIELD
        if batch.syncing:
            seconds, self._sync_yield = self._sync_yield, SYNC_YIELD
        if not batch.finished.wait(seconds):
            self._stand_aside_later(batch)

    # --- when the disk fails --------------------------------------------------------------------------------

    async def _recover(self, batch: Batch) -> None:
        trouble = batch.trouble
        assert trouble is not None
        self._trouble, self._consecutive_failures = str(trouble.error), self._consecutive_failures + 1
        log.error("journal cannot write", problem=self._trouble, ambiguous=trouble.ambiguous, rows=len(batch))
        callers = Batch(s for s in batch if not s.retry_until_stored)
        kept = Batch(s for s in batch if s.retry_until_stored)
        if not trouble.ambiguous:
            _refuse(callers, NotStored(self._trouble))
            callers.clear()
        if await self._fence(callers, after_fsync=trouble.fsync):
            _refuse(callers, NotStored(self._trouble))
            self._pending = Batch([*kept, *self._pending])
            if not self._pending:
                self._note_recovered(0)
            elif self._consecutive_failures > 1:
                await self._wait_for_room()
        else:
            _refuse(callers, OutcomeUnknown(self._trouble))

    def _note_recovered(self, rows: int) -> None:
        self._trouble, self._consecutive_failures = "", 0
        self.room_again()
        log.info("journal writes again", rows=rows)

    async def _wait_for_room(self) -> None:
        """The fence is in, what was kept does not fit: it is tried later, or by a closing engine left to the next."""
        wait = min(FIRST_WAIT * 2 ** min(self._consecutive_failures - 2, 16), self._longest_wait)
        if self._closing.is_set():
            self._refuse_newcomers()
            log.warning("ends not stored: the next start runs these again", rows=len(self._pending))
            self._pending.clear()
        else:
            await self._closes_within(wait)

    async def _fence(self, callers: Batch, *, after_fsync: bool) -> bool:
        """Commit the fence, trying until it is in; False if the engine closes before."""
        wait, waited = FIRST_WAIT, 0.0
        while True:
            self.make_room()
            fence = Batch([WriteRequest(((Statement.FENCE, (1,)),))])
            await self._commit(fence)
            if fence.trouble is None:
                return True
            if after_fsync or fence.trouble.fsync:
                _refuse(callers, OutcomeUnknown(self._trouble))
                raise JournalBroken(self._trouble)
            self._refuse_newcomers()
            if self._closing.is_set():
                return False
            if waited >= self._max_wait:
                _refuse(callers, OutcomeUnknown(self._trouble))
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
        """Nothing will be written any more: nobody may wait for it."""
        self._broken = True
        self._trouble = self._trouble or repr(error)
        self._refuse_newcomers()

    def _refuse_newcomers(self) -> None:
        """Those that were submitted while the failing commit was under way."""
        _refuse(Batch(s for s in self._pending if not s.retry_until_stored), NotStored(self._trouble))
        self._pending = Batch(s for s in self._pending if s.retry_until_stored)


def answer(future: asyncio.Future[Any], request: WriteRequest) -> None:
    """Tell a caller the fate of its submission, unless it went away."""
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
    """Everyone, also when telling one of them fails; that is a fault of ours, and raised in the end."""
    fault: Exception | None = None
    for request in batch:
        if request.done is not None:
            try:
                request.done(request)
            except Exception as error:
                fault = error
    if fault is not None:
        raise fault
