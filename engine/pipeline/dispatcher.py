"""Dispatcher: moves invocations from the scheduler through the executor to settlement.

Each slot takes the next invocation and makes one attempt. The slot finds the function's version, discards the
invocation if it is too old, executes it, and settles its end. An exception from the executor becomes an outcome with
code 150500, so that no attempt stops the engine.

A slot does not wait until its outcome is on disk. If too many outcomes wait for the disk, no asynchronous work starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import OutcomeUnknown
from engine.functions.catalog import Catalog
from engine.metrics.histogram import Distribution, Histogram
from engine.model import AsyncSettings, Code, DestinationSpec, Function, Invocation, Mode, Outcome, State
from engine.model.clock import Clock, rfc3339
from engine.model.retry import RetryPolicy
from engine.model.signal import Signal
from engine.model.text import storable
from engine.model.urn import LATEST
from engine.pipeline.begins import Begins, crashes_text
from engine.protocols import Executor, Journal, Records, Settlement
from engine.scheduling.backlog import Backlog
from engine.scheduling.function_queue import Entry
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.dispatcher")

#: Outcomes per slot that may wait for the disk. At this number, no further asynchronous work starts.
UNSETTLED_PER_SLOT = 16
#: Bytes of the largest result that is stored. A larger result is left out of the record.
KEPT_RESULT = 256 << 10
CANCEL_TIMEOUT = 10.0  #: seconds for which ``cancel`` waits until the end of a run is on disk
_SETTLING = "outcomes wait for the disk"
_CANCELLED = "function invocation canceled"


class DispatcherStatistics(Struct, frozen=True, kw_only=True):
    started: int
    outcomes: dict[str, int]  #: final states of asynchronous invocations
    codes: dict[int, int]  #: codes of all attempts, in both modes
    retries: int
    unsettled: int
    wait_seconds: Distribution  #: from the due time to the start
    run_seconds: Distribution


class DispatchOptions(Struct, frozen=True, kw_only=True):
    slots: int  #: attempts that run at the same time
    priority_step: float  #: seconds, see ``QueueSettings``
    retry: RetryPolicy


class Dispatcher:
    """Service that runs invocations.

    ``attempt_ended(function, outcome)`` announces an attempt that has run. ``end_stored(settlement)`` announces the end
    of an invocation that is on disk.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        journal: Journal,
        records: Records,
        executor: Executor,
        catalog: Catalog,
        backlog: Backlog,
        clock: Clock,
        options: DispatchOptions,
    ) -> None:
        self.attempt_ended: Signal[[Function, Outcome]] = Signal()
        self.end_stored: Signal[[Settlement]] = Signal()
        self._scheduler, self._journal, self._records = scheduler, journal, records
        self._executor, self._catalog, self._backlog = executor, catalog, backlog
        self._clock, self._random = clock, Random()
        self._policy, self._slots, self._priority_step = options.retry, options.slots, options.priority_step
        self._running: dict[int, Entry] = {}
        self._abandoned: list[Invocation] = []  #: invocations that ran when their slots were cancelled
        self._cancelled: set[int] = set()
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._unsettled, self._begins = 0, Begins(journal)
        self._started = self._retries = 0
        self._outcomes = {state.value: 0 for state in State if state.final}
        self._codes: dict[int, int] = {}
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
        interrupted = [one for one in self._abandoned if one.mode is Mode.ASYNC]
        if interrupted:
            log.warning("stopped before running invocations ended", invocations=len(interrupted))
            await self._journal.release(interrupted)

    def fail_poisoned(self, invocations: tuple[Invocation, ...]) -> None:
        """End invocations as FAIL, because the engine crashed too often while they ran. Users can redrive them."""
        for invocation in invocations:
            text, now = crashes_text(invocation), self._clock.now()
            log.error("invocation poisoned", request_id=invocation.request_id, problem=text)
            outcome = Outcome(code=Code.ENGINE, message=text, started_at=now, ended_at=now)
            self._settle(invocation, outcome, may_retry=False)

    # --- for callers ----------------------------------------------------------------------------------------

    async def cancel(self, key: int) -> bool:
        """End a waiting or running invocation as FAIL with code 4208 (cancelled).

        Returns True when this end is on disk, and False if the invocation had another end or does not exist. Raises
        NotStored if the disk refused the end. Raises OutcomeUnknown if the end may be on disk or is not there in time.
        After either error, the invocation may still run, or run again.
        """
        if key in self._running:
            return await self._cancel_running(key)
        record = await self._records.get(key)
        if record is None or record.state.final:
            return False
        if await self._cancel_waiting(record.function_id, key):
            return True
        return key in self._running and await self._cancel_running(key)

    async def ended(self, key: int, timeout: float | None) -> None:  # noqa: ASYNC109  (the timeout raises no error)
        """Wait until the invocation has ended, at most ``timeout`` seconds (None: no limit).

        Return at once if the invocation does not exist.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            record = await self._records.get(key)
            if record is not None and not record.state.final:
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiters = self._waiters.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(key, None)

    def note_discarded(self, keys: Sequence[int]) -> None:
        """Count discarded invocations, and wake callers that wait in ``ended``. Call this when their end is on disk."""
        self._codes[Code.FUNCTION_MISSING] = self._codes.get(Code.FUNCTION_MISSING, 0) + len(keys)
        self._outcomes[State.DISCARD.value] += len(keys)
        for key in self._waiters.keys() & set(keys):
            self._wake(key)

    def is_running(self) -> bool:
        """Return whether invocations are running."""
        return bool(self._running)

    def statistics(self) -> DispatcherStatistics:
        return DispatcherStatistics(
            started=self._started,
            outcomes=dict(self._outcomes),
            codes=dict(self._codes),
            retries=self._retries,
            unsettled=self._unsettled,
            wait_seconds=self._wait_seconds.snapshot(),
            run_seconds=self._run_seconds.snapshot(),
        )

    # --- one attempt ----------------------------------------------------------------------------------------

    async def _slot(self) -> None:
        entry = await self._scheduler.take()
        while True:
            one = entry.invocation
            if self._clock.expiry.check() and self._policy.in_doubt(one, self._settings(one), self._clock):
                self._scheduler.park(entry)
                entry = await self._scheduler.take()
                continue
            seconds = await self._attempt(entry)
            entry = await self._scheduler.exchange(entry, seconds)

    async def _attempt(self, entry: Entry) -> float:
        """Run an attempt to its end. Return its duration in seconds, measured by a clock that cannot be set."""
        invocation = entry.invocation
        self._running[invocation.key] = entry
        elapsed = asyncio.get_running_loop().time
        began, since = self._clock.now(), elapsed()
        try:
            function = self._catalog.resolve(invocation.function_id, invocation.version)
            if function is not None and invocation.key < function.created_key:
                function = None  # the version was deleted and then created again
            outcome, ran = await self._run(invocation, function, began)
        except asyncio.CancelledError:
            self._answer(entry, _shut_down(began))
            self._abandoned.append(invocation)  # for ``release``
            raise
        finally:
            del self._running[invocation.key]
            if not self._running:
                self._drained.set()
        seconds = elapsed() - since
        self._cancelled.discard(invocation.key)
        self._answer(entry, outcome)
        self._codes[outcome.code] = self._codes.get(outcome.code, 0) + 1
        if invocation.mode is Mode.ASYNC:
            self._settle(invocation, outcome, ran=ran, may_retry=not invocation.damage)
        return seconds

    async def _run(self, invocation: Invocation, function: Function | None, now: float) -> tuple[Outcome, bool]:
        """Run the function unless it was deleted, or the invocation is too old or damaged.

        Return the outcome, and whether the function was run.
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
        self._wait_seconds.observe(max(0.0, now - invocation.due_at))
        outcome = await self._execute(function, invocation, now)
        self._run_seconds.observe(max(0.0, outcome.ended_at - outcome.started_at))
        self.attempt_ended(function, outcome)
        return outcome, True

    async def _execute(self, function: Function, invocation: Invocation, now: float) -> Outcome:
        begin = self._begins.of(invocation, now) if invocation.mode is Mode.ASYNC else None
        try:
            outcome = await self._executor.execute(function, invocation, begin)
        except Exception as error:
            log.exception("attempt failed in the engine", request_id=invocation.request_id, function=function.name)
            text = f"the engine could not run the invocation: {error}"
            return Outcome(code=Code.ENGINE, message=text, started_at=now, ended_at=self._clock.now())
        if invocation.key in self._cancelled and not outcome.ok:
            return msgspec.structs.replace(outcome, code=Code.CANCELLED, message=_CANCELLED)
        return outcome

    def _answer(self, entry: Entry, outcome: Outcome) -> None:
        if entry.reply is not None:
            self._backlog.remove_sync(entry.size)
            if not entry.reply.done():
                entry.reply.set_result(outcome)

    async def _cancel_waiting(self, function_id: int, key: int) -> bool:
        """End a waiting invocation as FAIL. Return False if the invocation runs already or has ended."""
        self._scheduler.withhold(function_id, key)
        try:
            await asyncio.sleep(0)  # lets a slot start the entry if it was given to one
            if key in self._running:
                self._scheduler.reinstate(key, ended=False)
                return False
            outcome = Outcome(code=Code.CANCELLED, message=_CANCELLED, ended_at=self._clock.now())
            decided = self._journal.cancel(key, outcome, then=self._cancel_decided)
        except BaseException:
            self._scheduler.reinstate(key, ended=False)
            raise
        return await decided is not None

    def _cancel_decided(self, key: int, found: tuple[int, int] | None, stored: bool) -> None:
        """Update scheduler and counters after a cancellation. Called when the journal has stored or refused its end."""
        self._scheduler.reinstate(key, ended=stored)
        if found is not None:
            self._backlog.remove(*found)
            self._codes[Code.CANCELLED] = self._codes.get(Code.CANCELLED, 0) + 1
            self._outcomes[State.FAIL.value] += 1
            self._wake(key)

    async def _cancel_running(self, key: int) -> bool:
        self._cancelled.add(key)
        self._executor.cancel(key)  # no effect if the run has just ended
        await self.ended(key, CANCEL_TIMEOUT)
        record = await self._records.get(key)
        if record is None or not record.state.final:
            raise OutcomeUnknown("the run was cancelled, but its end is not on disk yet; look at its state later")
        return record.code == Code.CANCELLED

    # --- the end of an attempt ------------------------------------------------------------------------------

    def _settle(self, invocation: Invocation, outcome: Outcome, *, ran: bool = True, may_retry: bool = True) -> None:
        outcome = msgspec.structs.replace(
            outcome,
            message=storable(outcome.message),
            result=outcome.result if len(outcome.result) <= KEPT_RESULT else b"",
        )
        settings = self._settings(invocation)
        retry = None
        if ran and may_retry:
            retry = self._policy.next_attempt(
                invocation,
                outcome,
                self._policy.rules(settings),
                now=outcome.ended_at,
                expiry_now=self._clock.expiry.now() if not outcome.ok and self._clock.expiry.check() else None,
                jitter_sample=self._random.random(),
                priority_step=self._priority_step,
            )
        state = _state(outcome, retry, ran)
        settlement = Settlement(
            invocation=invocation,
            state=state,
            outcome=outcome,
            retry=retry,
            deliver_to=_destination(settings, state, outcome),
            ran=ran,
        )
        self._unsettled += 1
        if self._unsettled == self._slots * UNSETTLED_PER_SLOT:
            self._scheduler.hold(_SETTLING)
        self._journal.settle(settlement, then=self._settled)

    def _settled(self, settlement: Settlement) -> None:
        """Queue the retry, or count the final state. Called by the journal when the end of an attempt is on disk."""
        self._unsettled -= 1
        if self._unsettled < self._slots * UNSETTLED_PER_SLOT and _SETTLING in self._scheduler.held:
            self._scheduler.resume(_SETTLING)
        invocation = settlement.invocation
        self._log_end(settlement)
        if settlement.retry is not None:
            self._retries += 1
            self._scheduler.push(settlement.retry)
            return
        self._backlog.remove(invocation.function_id, len(invocation.payload))
        self._outcomes[settlement.state.value] += 1
        self._wake(invocation.key)
        self.end_stored(settlement)

    def _log_end(self, settlement: Settlement) -> None:
        """Log the end of an attempt, a success at level debug and a failure at level info."""
        invocation, outcome, retry = settlement.invocation, settlement.outcome, settlement.retry
        if settlement.state is State.SUCCESS:
            log.debug("invocation ended", request_id=invocation.request_id, state="SUCCESS")
            return
        function = self._catalog.resolve(invocation.function_id, invocation.version)
        log.info(
            "attempt failed" if retry else "invocation ended",
            request_id=invocation.request_id,
            function=function.name if function else "",
            state=settlement.state.value,
            attempt=invocation.attempt,
            code=int(outcome.code),
            problem=outcome.message[:200],
            retry_at=rfc3339(retry.due_at) if retry else None,
        )

    def _settings(self, invocation: Invocation) -> AsyncSettings | None:
        return self._catalog.settings_of(invocation.function_id, invocation.version)

    def _wake(self, key: int) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)


def _state(outcome: Outcome, retry: Invocation | None, ran: bool) -> State:
    if retry is not None:
        return State.WAIT
    if not ran:
        return State.DISCARD
    return State.SUCCESS if outcome.ok else State.FAIL


def _destination(settings: AsyncSettings | None, state: State, outcome: Outcome) -> DestinationSpec | None:
    if settings is None or state is State.WAIT or outcome.cancelled:
        return None
    return settings.on_success if state is State.SUCCESS else settings.on_failure


def _shut_down(now: float) -> Outcome:
    return Outcome(code=Code.ENGINE, message="the engine stopped", started_at=now, ended_at=now)
