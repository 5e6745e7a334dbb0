"""Dispatcher: moves invocations from the scheduler through the executor to settlement.

Each slot takes the next invocation and makes one attempt. The slot finds the function's version, discards the
invocation if it is too old, executes it, and settles its end. An exception from the executor becomes an outcome with
code 150500, so that no attempt stops the engine.

An attempt for which no instance can start returns to the queue, as if it had not begun.

A slot does not wait until its outcome is on disk. If too many outcomes wait for the disk, no asynchronous work starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import Deferred, Unavailable
from engine.functions.catalog import Catalog
from engine.metrics.histogram import Distribution, Histogram
from engine.model import AsyncSettings, Begin, Code, Function, Invocation, Mode, Outcome
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.model.urn import LATEST
from engine.pipeline.cancellation import CANCELLED, Cancellation
from engine.pipeline.settling import DispatchOptions, Ends, Settling
from engine.protocols import Executor, Journal, Storage
from engine.scheduling.backlog import Backlog
from engine.scheduling.function_queue import Entry
from engine.scheduling.scheduler import RETRY_DELAY, Scheduler

log = structlog.get_logger("functiond.dispatcher")

FIRST_ATTEMPTS = 256  #: attempts after a start of the engine that wait for the record of their begin
BEGIN_TIMEOUT = 5.0  #: seconds for which an attempt waits for its record, such as while the disk is full


class DispatcherStatistics(Struct, frozen=True, kw_only=True):
    started: int
    outcomes: dict[str, int]  #: final states of asynchronous invocations
    codes: dict[int, int]  #: codes of all attempts, in both modes
    retries: int
    unsettled: int
    wait_seconds: Distribution  #: from the due time to the start
    run_seconds: Distribution


class Begins:
    """Record of the begin of a handler, by which a crash of the engine counts for the invocation or for its start.

    The record joins the batch that is being gathered, and the handler does not wait for it. A crash in the next moment
    may then count as one before the handler began, or not at all. Two kinds of attempts wait until the record is on
    disk, so that an invocation that kills the engine at once is caught nevertheless:

    - attempts of invocations that met a crash before,
    - the first attempts after a start of the engine, because such an invocation is soon among them.
    """

    def __init__(self, journal: Journal, first_attempts: int = FIRST_ATTEMPTS) -> None:
        self._start, self._first = journal.start, first_attempts

    def of(self, invocation: Invocation, started_at: float) -> Begin:
        """Return the function that an executor calls before the handler begins."""
        return partial(self._begin, invocation, started_at)

    def _begin(self, invocation: Invocation, started_at: float) -> Awaitable[None] | None:
        if self._first <= 0 and not invocation.crash_count and not invocation.start_crashes:
            self._start(invocation, started_at, begun=True)
            return None
        self._first -= 1
        return self._store(invocation, started_at)

    async def _store(self, invocation: Invocation, started_at: float) -> None:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not stored.done():
                stored.set_result(None)

        self._start(invocation, started_at, begun=True, then=done)
        await asyncio.wait([stored], timeout=BEGIN_TIMEOUT)


class Dispatcher:
    """Service that runs invocations.

    ``attempt_ended(function, invocation, outcome)`` announces an attempt that has run.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        storage: Storage,
        executor: Executor,
        catalog: Catalog,
        backlog: Backlog,
        clock: Clock,
        ends: Ends,
        options: DispatchOptions,
    ) -> None:
        self._scheduler, self._journal, self._executor, self._catalog = scheduler, storage.journal, executor, catalog
        self._backlog, self._clock, self._policy, self._slots = backlog, clock, options.retry, options.slots
        self._trace_of, self._ends = options.trace_of, ends
        self._running: dict[int, Entry] = {}
        self._abandoned: list[Invocation] = []  #: invocations that ran when their slots were cancelled
        self._drained = asyncio.Event()
        self._drained.set()
        self._begins, self._started = Begins(storage.journal), 0
        self._settling = Settling(
            scheduler=scheduler,
            journal=storage.journal,
            catalog=catalog,
            backlog=backlog,
            clock=clock,
            ends=ends,
            options=options,
        )
        self.cancellation = Cancellation(
            scheduler=scheduler,
            journal=storage.journal,
            records=storage.records,
            executor=executor,
            backlog=backlog,
            clock=clock,
            ends=ends,
            running=self._running,
        )
        self.cancel, self.ended = self.cancellation.cancel, ends.wait
        self.attempt_ended: Signal[[Function, Invocation, Outcome]] = Signal()
        self._wait_seconds, self._run_seconds = Histogram(), Histogram()

    # --- the service ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._slots):
                slots.create_task(self._slot())
            task_status.started()

    async def drain(self) -> None:
        """Wait until no invocation runs in any slot. New starts are not prevented."""
        await asyncio.sleep(0)  # lets slots start the entries that they were given
        while self._running:
            self._drained.clear()
            await self._drained.wait()

    async def release(self) -> None:
        """Put asynchronous invocations that ran when ``run`` was cancelled back to state WAIT.

        Used when the engine stops.
        """
        interrupted = [invocation for invocation in self._abandoned if invocation.mode is Mode.ASYNC]
        if interrupted:
            log.warning("stopped before running invocations ended", invocations=len(interrupted))
            await self._journal.release(interrupted)

    def fail_poisoned(self, invocations: tuple[Invocation, ...]) -> None:
        """End invocations as FAIL, because the engine crashed too often while they ran. Users can redrive them."""
        for invocation in invocations:
            text, now = _crashes_text(invocation), self._clock.now()
            log.error("invocation poisoned", request_id=invocation.request_id, problem=text)
            outcome = Outcome(code=Code.ENGINE, message=text, started_at=now, ended_at=now)
            self._settling.settle(invocation, outcome, may_retry=False)

    # --- for callers ----------------------------------------------------------------------------------------

    def retries_of(self, invocation: Invocation) -> int:
        """Return how many retries the settings of an asynchronous invocation allow at most, rules included."""
        settings = self._settings(invocation)
        if settings is None:
            return self._policy.default.retries
        return max(settings.max_retries, *(rule.max_retries for rule in settings.retry_rules), 0)

    def is_running(self) -> bool:
        """Return whether invocations are running."""
        return bool(self._running)

    def running(self) -> Sequence[Invocation]:
        """Return the invocations that run now."""
        return [entry.invocation for entry in self._running.values()]

    def statistics(self) -> DispatcherStatistics:
        return DispatcherStatistics(
            started=self._started,
            outcomes=dict(self._ends.outcomes),
            codes=dict(self._ends.codes),
            retries=self._settling.retries,
            unsettled=self._settling.unsettled,
            wait_seconds=self._wait_seconds.snapshot(),
            run_seconds=self._run_seconds.snapshot(),
        )

    # --- one attempt ----------------------------------------------------------------------------------------

    async def _slot(self) -> None:
        entry = await self._scheduler.take()
        while True:
            seconds = await self._attempt(entry)
            entry = await (self._scheduler.take() if seconds is None else self._scheduler.exchange(entry, seconds))

    async def _attempt(self, entry: Entry) -> float | None:
        """Run an attempt to its end. Return its duration in seconds, measured by a clock that cannot be set.

        Return None if the entry has returned to the queue.
        """
        invocation = entry.invocation
        if self._clock.expiry.check() and self._policy.in_doubt(invocation, self._settings(invocation), self._clock):
            self._scheduler.park(entry)
            return None
        self._running[invocation.key] = entry
        elapsed = asyncio.get_running_loop().time
        began, since = self._clock.now(), elapsed()
        try:
            function = self._catalog.resolve(invocation.function_id, invocation.version)
            if function is not None and invocation.key < function.created_key:
                function = None  # the version was deleted and then created again
            outcome, ran = await self._run(invocation, function, began)
            if deferred := outcome is None:
                outcome = await self._undo(invocation, began)
        except asyncio.CancelledError:
            stopped = Outcome(code=Code.ENGINE, message="the engine stopped", started_at=began, ended_at=began)
            self._answer(entry, stopped)
            self._abandoned.append(invocation)  # for ``release``
            raise
        finally:
            del self._running[invocation.key]
            if not self._running:
                self._drained.set()
        seconds = elapsed() - since
        if outcome is None:
            self._scheduler.put_back(entry, seconds)
            self._scheduler.reinstate(invocation.key, ended=False)
            return None
        self.cancellation.requested.discard(invocation.key)
        self._answer(entry, outcome)
        self._ends.note_code(outcome.code)
        if invocation.mode is Mode.ASYNC:
            self._settling.settle(invocation, outcome, ran=ran, may_retry=not invocation.damage)
        if deferred:
            self._scheduler.reinstate(invocation.key, ended=True)
        return seconds

    async def _undo(self, invocation: Invocation, now: float) -> Outcome | None:
        """Put an attempt that was deferred back to WAIT. Return None, or the outcome if it was cancelled meanwhile.

        The invocation is withheld, because a page that is read from disk may have it before it is put back.
        """
        self._scheduler.withhold(invocation.function_id, invocation.key)
        while invocation.mode is Mode.ASYNC:
            with suppress(Unavailable):
                await self._journal.release([invocation])
                break
            await asyncio.sleep(RETRY_DELAY)
        if invocation.key not in self.cancellation.requested:
            return None
        return Outcome(code=Code.CANCELLED, message=CANCELLED, started_at=now, ended_at=self._clock.now())

    async def _run(self, invocation: Invocation, function: Function | None, now: float) -> tuple[Outcome | None, bool]:
        """Run the function unless it was deleted, or the invocation is too old or damaged.

        Return the outcome, and whether the function was run. There is no outcome if no instance can start now.
        """
        if function is None:
            deleted = self._catalog.resolve(invocation.function_id, LATEST) is None
            text = "the function was deleted" if deleted else f"version {invocation.version} was deleted"
            return Outcome(code=Code.FUNCTION_MISSING, message=text, started_at=now, ended_at=now), False
        if invocation.mode is Mode.ASYNC:
            rules = self._policy.rules(self._settings(invocation))
            if self._policy.too_old(invocation, rules, now):
                text = f"older than {rules.max_age:g} s before it could start"
                return Outcome(code=Code.EXPIRED, message=text, started_at=now, ended_at=now), False
            if invocation.damage:
                log.error("invocation damaged", request_id=invocation.request_id, problem=invocation.damage)
                return Outcome(code=Code.ENGINE, message=invocation.damage, started_at=now, ended_at=now), True
            self._journal.start(invocation, now)
        self._started += 1
        outcome = await self._execute(function, invocation, now)
        if outcome is not None:
            self._wait_seconds.observe(now - invocation.due_at)
            self._run_seconds.observe(outcome.ended_at - outcome.started_at)
            self.attempt_ended(function, invocation, outcome)
        return outcome, True

    async def _execute(self, function: Function, invocation: Invocation, now: float) -> Outcome | None:
        begin = self._begins.of(invocation, now) if invocation.mode is Mode.ASYNC else None
        try:
            run = invocation
            if self._trace_of is not None:
                run = msgspec.structs.replace(invocation, trace=self._trace_of(invocation))
            outcome = await self._executor.execute(function, run, begin)
        except Deferred:
            return None
        except Exception as error:
            log.exception("attempt failed in the engine", request_id=invocation.request_id, function=function.name)
            text = f"the engine could not run the invocation: {error}"
            return Outcome(code=Code.ENGINE, message=text, started_at=now, ended_at=self._clock.now())
        if invocation.key in self.cancellation.requested and not outcome.ok:
            return msgspec.structs.replace(outcome, code=Code.CANCELLED, message=CANCELLED)
        return outcome

    def _answer(self, entry: Entry, outcome: Outcome) -> None:
        if entry.reply is not None:
            self._backlog.remove_sync(entry.invocation.function_id, entry.size)
            if not entry.reply.done():
                entry.reply.set_result(outcome)

    def _settings(self, invocation: Invocation) -> AsyncSettings | None:
        return self._catalog.settings_of(invocation.function_id, invocation.version)


def _crashes_text(invocation: Invocation) -> str:
    """Return the message of an invocation that met too many crashes of the engine."""
    text = f"the engine crashed {invocation.crash_count} times while this invocation was running"
    starts = invocation.start_crashes
    return f"{text}, and {starts} times before its handler began" if starts else text
