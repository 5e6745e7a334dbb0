"""Settlement of attempts: decides between retry and end, stores the decision, and passes on what is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from random import Random

import msgspec
import structlog
from msgspec import Struct

from engine.functions.catalog import Catalog
from engine.maintenance.pruner import Pruner
from engine.model import AsyncSettings, DestinationSpec, Invocation, Outcome, State
from engine.model.clock import Clock, rfc3339
from engine.model.retry import RetryPolicy
from engine.model.signal import Signal
from engine.model.text import storable
from engine.pipeline.delivery import DeliveryWorker
from engine.protocols import Journal, Records, Settlement, WaitingEnd
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.dispatcher")

#: Bytes of the largest result that is stored. A larger result is left out of the record.
KEPT_RESULT = 256 << 10
#: Outcomes per slot that may wait for the disk. At this number, no further asynchronous work starts.
UNSETTLED_PER_SLOT = 16
_SETTLING = "outcomes wait for the disk"


class DispatchOptions(Struct, frozen=True, kw_only=True):
    slots: int  #: attempts that run at the same time
    priority_step: float  #: seconds, see ``QueueSettings``
    retry: RetryPolicy
    #: returns the trace context that a function gets; None: that of the request
    trace_of: Callable[[Invocation], str] | None = None


class Ends:
    """Ends of invocations that are on disk: counted, and passed to their waiting callers, the pruner and the delivery.

    ``end_stored(settlement)`` announces the end of an invocation that a slot took, and ``waiting_ended(function_id,
    end, rows)`` the end of ``rows`` waiting ones. Counters and callers are in memory: a standby that takes over counts
    from zero, and its callers wait anew.
    """

    def __init__(self, records: Records, pruner: Pruner, deliveries: DeliveryWorker) -> None:
        self.end_stored: Signal[[Settlement]] = Signal()
        self.waiting_ended: Signal[[int, WaitingEnd, int]] = Signal()
        self._records, self._pruner, self._deliveries = records, pruner, deliveries
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self.outcomes = {state.value: 0 for state in State if state.final}  #: final states of asynchronous invocations
        self.codes: dict[int, int] = {}  #: codes of all attempts, in both modes

    def note_code(self, code: int, count: int = 1) -> None:
        self.codes[code] = self.codes.get(code, 0) + count

    def note_settled(self, settlement: Settlement) -> None:
        self._note(settlement.invocation.key, settlement.state)
        self._pass_on(settlement.deliver_to)
        self.end_stored(settlement)

    def note_waiting(self, function_id: int, end: WaitingEnd, keys: Sequence[int]) -> None:
        """Note that waiting invocations of a function have got the end ``end``."""
        self.note_code(end.outcome.code, len(keys))
        for key in keys:
            self._note(key, end.state)
        self._pass_on(end.deliver_to)
        self.waiting_ended(function_id, end, len(keys))

    async def wait(self, key: int, timeout: float | None) -> None:  # noqa: ASYNC109  (the timeout raises no error)
        """Wait until the invocation has ended, at most ``timeout`` seconds (None: no limit).

        Return at once if the invocation does not exist.
        """
        with self.watching([key]) as end:
            record = await self._records.get(key)
            if record is not None and not record.state.final:
                await asyncio.wait([end], timeout=timeout)

    @contextmanager
    def watching(self, keys: Collection[int]) -> Iterator[asyncio.Future[None]]:
        """Yield a future that is done when the next one of these invocations ends."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._waiters.setdefault(key, []).append(waiter)
        try:
            yield waiter
        finally:
            for key in keys:
                waiters = self._waiters.get(key, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiters.pop(key, None)

    def _note(self, key: int, state: State) -> None:
        self.outcomes[state.value] += 1
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _pass_on(self, deliver_to: DestinationSpec | None) -> None:
        self._pruner.note_end()
        if deliver_to is not None:
            self._deliveries.wake()


class Settling:
    """Stores the ends of attempts, without waiting for the disk."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        journal: Journal,
        catalog: Catalog,
        backlog: Backlog,
        clock: Clock,
        ends: Ends,
        options: DispatchOptions,
    ) -> None:
        self.retries = self.unsettled = 0
        self._scheduler, self._journal, self._catalog, self._backlog = scheduler, journal, catalog, backlog
        self._clock, self._ends, self._random = clock, ends, Random()
        self._policy, self._priority_step = options.retry, options.priority_step
        self._limit = options.slots * UNSETTLED_PER_SLOT

    def settle(self, invocation: Invocation, outcome: Outcome, *, ran: bool = True, may_retry: bool = True) -> None:
        """Store the end of an attempt of an asynchronous invocation, or its retry."""
        if outcome.message or len(outcome.result) > KEPT_RESULT:
            outcome = _kept(outcome)
        settings = self._catalog.settings_of(invocation.function_id, invocation.version)
        retry, decision = None, None
        if ran and may_retry and not outcome.ok:
            retry, decision = self._policy.decide(
                invocation,
                outcome,
                self._policy.rules(settings),
                now=outcome.ended_at,
                expiry_now=self._clock.expiry.now() if self._clock.expiry.check() else None,
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
            decision=decision if settings is not None or retry is not None or outcome.losses else None,
        )
        self.unsettled += 1
        if self.unsettled == self._limit:
            self._scheduler.hold(_SETTLING)
        self._journal.settle(settlement, then=self._settled)

    def _settled(self, settlement: Settlement) -> None:
        """Queue the retry, or count the final state. Called by the journal when the end of an attempt is on disk."""
        if self.unsettled == self._limit:
            self._scheduler.resume(_SETTLING)
        self.unsettled -= 1
        invocation = settlement.invocation
        self._log_end(settlement)
        if settlement.retry is not None:
            self.retries += 1
            self._scheduler.push(settlement.retry)
            return
        self._backlog.remove(invocation.function_id, len(invocation.payload))
        self._ends.note_settled(settlement)

    def _log_end(self, settlement: Settlement) -> None:
        """Log the end of an attempt, at level info only if it did not run: the executor logs errors of functions."""
        invocation, outcome, retry = settlement.invocation, settlement.outcome, settlement.retry
        if settlement.state is State.SUCCESS:
            log.debug("invocation ended", request_id=invocation.request_id, state="SUCCESS")
            return
        function = self._catalog.resolve(invocation.function_id, invocation.version)
        write = log.debug if settlement.ran else log.info
        write(
            "attempt failed" if retry else "invocation ended",
            request_id=invocation.request_id,
            function=function.name if function else "",
            state=settlement.state.value,
            attempt=invocation.attempt,
            code=int(outcome.code),
            problem=outcome.message[:200],
            retry_at=rfc3339(retry.due_at) if retry else None,
            decision=settlement.decision.text if settlement.decision else None,
        )


def _kept(outcome: Outcome) -> Outcome:
    """Return the outcome with a message that can be stored, and without a result that is too large."""
    message, result = outcome.message, outcome.result
    if len(result) > KEPT_RESULT:
        message = message or f"the result has {len(result)} bytes, more than {KEPT_RESULT}, and is not kept"
        result = b""
    return msgspec.structs.replace(outcome, message=storable(message), result=result)


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
