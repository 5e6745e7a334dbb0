"""Delivery of outcomes from the outbox to their destinations, at least once, with the same ``delivery_id`` each time.

A failed delivery is retried with exponential backoff until ``MAX_AGE`` seconds after the end of the invocation or its
last redrive, then given up. A given-up delivery stays in the outbox with its error, for inspection and redrive. An
exception of one delivery never stops another.

Failures and delays of one destination must not delay deliveries to others:

- The outbox is read separately for each destination. A destination has up to ``AT_ONCE`` concurrent deliveries, of
  which the first has a slot of its own. All destinations share the slots of their further deliveries.
- A project may have as many slots of either kind as are free: half of them while no other project has any.
- After a failure, a destination gets one delivery at a time, and only while its project may have ``SPARE`` more. So
  destinations that hang, however many, leave slots for others.
- While the circuit breaker of a destination is open, the deliveries to this destination wait. A delivery that has been
  due for more than ``MAX_AGE`` seconds is still tried a last time. ``probe`` tries one delivery in spite of the circuit
  breaker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from engine.asgi.room import Room
from engine.config.plugin_registry import Registry
from engine.errors import NotForProject, PageDamaged, Unavailable
from engine.errors.groups import with_cause
from engine.logs.causes import Causes
from engine.model import DestinationSpec, PendingDelivery, Record, Request
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.model.signal import Signal
from engine.model.text import storable
from engine.pipeline.circuit_breaker import CircuitBreakers, DeliveryStatus, DestinationStatus
from engine.pipeline.delivery_records import DeliveryRecords
from engine.pipeline.intake import Intake
from engine.protocols import Destination, Outbox, Plugin, PluginContext, Records, Undeliverable

log = structlog.get_logger("functiond.delivery")

MAX_HOPS = 16  #: length of a chain of functions that invoke each other as destinations
AT_ONCE = 32  #: concurrent deliveries to one destination
ALL_AT_ONCE = 1024  #: concurrent deliveries to all destinations
SHARED = ALL_AT_ONCE // 4  #: of them, those beyond the first of each destination
SPARE = 128  #: slots of a project that its failing destinations leave to its others
PAGE = ALL_AT_ONCE  #: deliveries read at a time
RETRY_DELAY = 1.0  #: seconds between tries while the journal is unavailable
WAIT_DELAY = 60.0  #: seconds between tries of a delivery that meets a damaged page, or that its project may not make
LONGEST = 60.0  #: seconds that one delivery may take
MAX_AGE = 86_400.0  #: seconds for which a delivery is retried


class Destinations:
    """Destinations by their settings. Each is made once.

    ``context_for`` returns the context of the plugin that has a kind of destination. ``trace_of`` returns the trace
    context that a try of a delivery sends.
    """

    def __init__(
        self,
        registry: Registry,
        context_for: Callable[[str], PluginContext],
        trace_of: Callable[[PendingDelivery, Record], str],
    ) -> None:
        self._registry, self._context_for, self.trace_of = registry, context_for, trace_of
        self._made: dict[DestinationSpec, tuple[Destination, Plugin, Any]] = {}

    def get(self, spec: DestinationSpec, project: str) -> Destination:
        """Return a destination. Raises NotForProject if the project may not use it."""
        if spec not in self._made:
            self._made[spec] = self._registry.destination(spec)
        destination, plugin, param = self._made[spec]
        if project:  # its function exists
            self._registry.check_use(plugin, param, project)
        return destination

    def plugin(self, spec: DestinationSpec) -> PluginContext:
        """Return the context of the plugin that implements the destination."""
        return self._context_for(spec.destination)


def trace_of_request(pending: PendingDelivery, record: Record) -> str:
    """Return the trace context of the request, which goes out unchanged if the engine makes no spans."""
    return record.trace


class DeliveryStatistics(Struct, frozen=True, kw_only=True):
    delivered: int
    failed: int  #: failed attempts of deliveries
    given_up: int
    under_way: int


class DeliveryTry(Struct, frozen=True, kw_only=True):
    """Ended try of a delivery."""

    pending: PendingDelivery
    record: Record | None  #: without payload and result; None: it was deleted, or could not be read
    began_at: float
    result: str  #: ``delivered``, ``failed`` (will be tried again) or ``given_up``
    problem: str = ""


class DeliveryWorker:
    """Service that delivers outcomes. One delivery may take ``longest`` seconds.

    ``begun(destination)`` announces each try of a delivery, and ``tried(delivery_try)`` its end.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        records: Records,
        destinations: Destinations,
        delivery_records: DeliveryRecords,
        intake: Intake,
        clock: Clock,
        policy: RetryPolicy,
        longest: float = LONGEST,
    ) -> None:
        self.begun: Signal[[DestinationSpec]] = Signal()
        self.tried: Signal[[DeliveryTry]] = Signal()
        self._outbox, self._records, self._delivery_records = outbox, records, delivery_records
        self._destinations, self._intake = destinations, intake
        self._clock, self._longest, self._causes = clock, longest, Causes()
        self._work = asyncio.Event()
        self._work.set()  # the outbox may have deliveries from an earlier run of the engine
        self._under_way: dict[int, tuple[DestinationSpec, str, Room]] = {}  #: with project and slots, by delivery id
        self._first, self._further = Room(ALL_AT_ONCE - SHARED), Room(SHARED)  #: slots that projects have
        self._breakers = CircuitBreakers(policy, Random())
        self._probes: set[DestinationSpec] = set()  #: destinations to try regardless of their breakers and limits
        self._delivered = self._failed = self._given_up = 0

    def wake(self) -> None:
        """Make ``run`` read the outbox now. Call this after a delivery was stored, as the end of an attempt does."""
        self._work.set()

    def probe(self, destinations: Iterable[DestinationSpec]) -> None:
        """Try one due delivery to each of these destinations now.

        The delivery is tried even if the circuit breaker is open or the destination has as many deliveries as it may
        have.
        """
        self._probes.update(destinations)
        self._work.set()

    def delivery_status(self, pending: PendingDelivery) -> DeliveryStatus:
        """Return the state of a pending delivery, and of the circuit breaker of its destination."""
        now, destination = self._clock.now(), pending.destination
        until = self._breakers.until(destination, now)
        return DeliveryStatus(
            failing=destination in self._breakers,
            held_until=until if until > now else 0.0,
            under_way=pending.delivery_id in self._under_way,
        )

    def destination_status(self, destination: DestinationSpec) -> DestinationStatus:
        """Return the state of a destination since the start of the engine."""
        return self._breakers.status(destination, self._clock.now())

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        async with anyio.create_task_group() as deliveries:
            task_status.started()
            while True:
                await self._work.wait()
                self._work.clear()
                next_due = await self._begin(deliveries)
                if next_due is not None:
                    alarm = self._clock.call_at(next_due, self._work.set)
                    try:
                        await self._work.wait()
                    finally:
                        alarm.cancel()

    def statistics(self) -> DeliveryStatistics:
        return DeliveryStatistics(
            delivered=self._delivered,
            failed=self._failed,
            given_up=self._given_up,
            under_way=len(self._under_way),
        )

    # --- choosing -------------------------------------------------------------------------------------------

    async def _begin(self, deliveries: TaskGroup) -> float | None:
        """Start due deliveries within the limits, and return the time at which to call this method again.

        Return None if the next call should wait until ``_work`` is set.
        """
        probes, self._probes = self._probes, set()
        try:
            pending, next_due = await self._outbox.due(self._clock.now(), PAGE, AT_ONCE)
        except Unavailable:
            self._probes |= probes
            return self._clock.now() + RETRY_DELAY
        now, at_once = self._clock.now(), Counter(destination for destination, *_ in self._under_way.values())
        for delivery in pending:
            until, probed = self._breakers.until(delivery.destination, now), delivery.destination in probes
            if now < until and self._clock.expiry.now() - delivery.due_at < MAX_AGE and not probed:
                next_due = until if next_due is None else min(next_due, until)
                continue
            if len(self._under_way) >= ALL_AT_ONCE or delivery.delivery_id in self._under_way:
                continue
            own, project = at_once[delivery.destination], self._delivery_records.project_of(delivery.function_id)
            if probed or self._has_room(delivery.destination, own, project):
                at_once[delivery.destination] += 1
                slots = self._further if own else self._first
                slots.add(project, 1)
                self._under_way[delivery.delivery_id] = delivery.destination, project, slots
                probes.discard(delivery.destination)
                deliveries.start_soon(self._deliver, delivery)
        if len(self._under_way) >= ALL_AT_ONCE:
            self._probes |= probes
        return next_due

    def _has_room(self, destination: DestinationSpec, own: int, project: str) -> bool:
        """Return whether the destination may have a delivery of the project beside its ``own`` that are under way."""
        failing = destination in self._breakers
        if not own:
            return self._first.fits(project, 1 + SPARE if failing else 1)
        return not failing and own < AT_ONCE and self._further.fits(project, 1)

    async def _deliver(self, pending: PendingDelivery) -> None:
        began_at = since = self._clock.now()
        record, result, problem = None, "delivered", ""
        try:
            record = await self._records.get(pending.key)
            if record is None:
                raise Undeliverable("the record of the invocation was deleted")
            since = max(record.ended_at or since, pending.since)
            document = self._delivery_records.encode(record)
            record = msgspec.structs.replace(record, payload=b"", result=b"")  # the destination may hang
            await self._try(pending, record, document)
        except Exception as error:  # an error of one delivery must not stop the others
            result, problem = await self._postpone(pending, error, since), str(error)
        else:
            self._delivered += 1
        finally:
            _, project, slots = self._under_way.pop(pending.delivery_id)
            slots.add(project, -1)
            self._work.set()
        self.tried(DeliveryTry(pending=pending, record=record, began_at=began_at, result=result, problem=problem))

    # --- one delivery ---------------------------------------------------------------------------------------

    async def _try(self, pending: PendingDelivery, record: Record, document: bytes) -> None:
        self.begun(pending.destination)
        context = _Context(self._outbox, self._intake, self._destinations, pending, record)
        destination = self._destinations.get(pending.destination, self._under_way[pending.delivery_id][1])
        with anyio.move_on_after(self._longest) as limit:
            await destination.deliver(pending, document, context)
        if limit.cancelled_caught:
            raise TimeoutError(f"the destination took longer than {self._longest:g} s")
        self._breakers.succeeded(pending.destination)
        if not context.done:
            await self._outbox.delivered(pending)

    async def _postpone(self, pending: PendingDelivery, error: Exception, since: float) -> str:
        """Schedule the next attempt of a delivery after an error, or give up the delivery. Return the result.

        ``since`` is the time from which the age of the delivery is counted: the end of the invocation or the last
        redrive.
        """
        now = self._clock.now()
        problem = storable(with_cause(str(error) or type(error).__name__, error))
        self._failed += 1
        undeliverable, damaged = isinstance(error, Undeliverable), isinstance(error, PageDamaged)
        waits = damaged or isinstance(error, NotForProject)
        if not undeliverable and not waits:  # these are no errors of the destination, which other projects may use
            self._breakers.failed(pending.destination, now, problem)
        final = undeliverable or (not damaged and self._clock.expiry.now() - since > MAX_AGE)
        due_at = None
        if not final:
            due_at = now + (WAIT_DELAY if waits else self._breakers.delay(pending.destination, pending.tries + 1))
        self._given_up += final
        if self._causes.note((pending.destination, problem, final)):
            log.warning(
                "delivery failed",
                delivery_id=pending.delivery_id,
                destination=pending.destination.destination,
                problem=problem,
                retry_in=None if due_at is None else round(due_at - now, 3),
            )
        try:
            await self._outbox.postpone(pending, due_at, problem)
        except Unavailable:
            log.warning("delivery not postponed: the journal cannot write", delivery_id=pending.delivery_id)
            await anyio.sleep(RETRY_DELAY)  # the delivery is still due
        return "given_up" if final else "failed"


class _Context:
    """Access of a destination to the engine during one delivery: hops, storing a request, plugin context."""

    def __init__(
        self, outbox: Outbox, intake: Intake, destinations: Destinations, pending: PendingDelivery, record: Record
    ) -> None:
        self._outbox, self._intake, self._destinations = outbox, intake, destinations
        self._pending, self._record = pending, record
        self.done = False
        self.traceparent = destinations.trace_of(pending, record)

    @property
    def plugin(self) -> PluginContext:
        return self._destinations.plugin(self._pending.destination)

    def hop(self) -> int:
        if self._record.hops >= MAX_HOPS:
            raise Undeliverable(f"destinations invoked {MAX_HOPS} functions in a row; check them for a loop")
        return self._record.hops + 1

    async def accept(self, request: Request) -> str:
        request = msgspec.structs.replace(request, hops=self.hop(), trace=self.traceparent, cause=self._record.key)
        request_id = await self._intake.accept_promised(
            request, lambda invocation: self._outbox.delivered(self._pending, append=invocation)
        )
        self.done = True
        return request_id
