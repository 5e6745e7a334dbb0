"""Deliveries: their attempts and order, their circuit breakers, and their records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import anyio
import pytest
from msgspec import Struct, field
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry
from engine.errors import NotFound, PageDamaged
from engine.functions.catalog import Catalog
from engine.model import AsyncSettings, DestinationSpec, Function, Invocation, PendingDelivery, Record, Request, State
from engine.model.alarms import CHECK
from engine.model.clock import SystemClock
from engine.model.retry import RetryPolicy
from engine.model.urn import FunctionUrn
from engine.pipeline.circuit_breaker import LONGEST, CircuitBreakers, DeliveryStatus, DestinationStatus
from engine.pipeline.delivery import (
    ALL_AT_ONCE,
    AT_ONCE,
    MAX_AGE,
    PAGE,
    SHARED,
    WAIT_DELAY,
    DeliveryWorker,
    Destinations,
    trace_of_request,
)
from engine.pipeline.delivery import LONGEST as LONGEST_DELIVERY
from engine.pipeline.delivery_records import DeliveryRecords
from engine.protocols import DeliveryContext, Plugin, PluginContext, Undeliverable
from tests.doubles import ManualClock, MemoryStorage
from tests.support.executing import function
from tests.support.storages import ended
from tests.support.waiting import in_own_task, until
from tests.unit.pipeline.test_intake import Queue

SPEC = DestinationSpec(destination="TEST", param="{}")
OTHER = DestinationSpec(destination="TEST", param='{"to": "another place"}')


class Nothing(Struct):
    """Parameters of a destination that takes none."""


class Recorder(Struct):
    """Destination that records deliveries and then calls ``then``."""

    seen: list[PendingDelivery] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    then: Callable[[PendingDelivery], Any] = lambda pending: None
    accepts: FunctionUrn | None = None  #: function that outcomes are sent to as events

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        self.seen.append(pending)
        self.records.append(record)
        if self.accepts is not None:
            await context.accept(Request(function=self.accepts, payload=record))
        result = self.then(pending)
        if isinstance(result, Exception):
            raise result
        if result is not None:
            await result


class Functions:
    def resolve(self, function_id: int, version: str) -> Function | None:
        return function("job", function_id=function_id)

    def project_of(self, function_id: int) -> str:
        return f"project of {function_id}"

    def settings_of(self, function_id: int, version: str) -> AsyncSettings | None:
        return None

    def route(self, urn: FunctionUrn) -> Function:
        if urn.name == "deleted":
            raise NotFound(f"function {urn.name} does not exist")
        return function(urn.name, function_id=9)


class Delivering(Queue):
    """Delivery worker of a queue, with a destination that records what it gets."""

    def __init__(self, clock: ManualClock, *, longest: float, largest: int) -> None:
        catalog = cast("Catalog", Functions())
        super().__init__(catalog, clock)
        self.clock, self.recorder = clock, Recorder()
        self.projects: tuple[str, ...] = ()  #: those that may use the destination; empty: all
        plugin = Plugin(
            kinds=("TEST",),
            param=Nothing,
            destination=lambda param: self.recorder,
            uses=lambda settings, param: {"boxes.one": self.projects},
        )
        self.delivery = DeliveryWorker(
            outbox=self.storage.outbox,
            records=self.storage.records,
            destinations=Destinations(Registry([plugin]), lambda kind: cast("PluginContext", None), trace_of_request),
            delivery_records=DeliveryRecords(catalog, "here", largest),
            intake=self.intake,
            clock=clock,
            policy=RetryPolicy(),
            longest=longest,
        )

    async def add(self, to: DestinationSpec = SPEC, *, decided: int = 0, **fields: Any) -> PendingDelivery:
        """Add a pending delivery, due now. Wait until ``decided`` deliveries were delivered or given up."""
        await ended(self.storage, at=self.clock.now(), deliver_to=to, **fields)
        self.pass_time(1.0)
        pending = self.storage.deliveries[max(self.storage.deliveries)]
        await self.decided(decided)
        return pending

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.delivery.wake()

    async def add_together(self, *to: DestinationSpec, function_id: int = 1) -> None:
        """Add pending deliveries without a pause between them."""
        for spec in to:
            await ended(self.storage, function_id, at=self.clock.now() - 1.0, deliver_to=spec)
        self.delivery.wake()

    async def settled(self) -> None:
        """Let the service begin and end all that it can."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def decided(self, count: int) -> None:
        """Wait until ``count`` deliveries were delivered or given up."""
        figures = self.delivery.statistics
        await until(lambda: figures().delivered + figures().failed >= count)


@asynccontextmanager
async def delivering(
    *, longest: float = LONGEST_DELIVERY, largest: int = 256 << 10, check: float = CHECK
) -> AsyncIterator[Delivering]:
    now = Delivering(ManualClock(check=check), longest=longest, largest=largest)
    async with anyio.create_task_group() as tasks:
        await tasks.start(now.delivery.run)
        with anyio.fail_after(60):
            yield now
        tasks.cancel_scope.cancel()


@pytest.fixture
async def now() -> AsyncIterator[Delivering]:
    async with in_own_task(delivering()) as now:
        yield now


async def test_a_pending_delivery_is_made_once_and_removed(now: Delivering) -> None:
    pending = await now.add(decided=1)
    now.delivery.wake()
    await asyncio.sleep(0)

    assert now.recorder.seen == [pending]
    assert now.storage.deliveries == {}


async def test_a_delivery_that_fails_is_tried_again_later(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    pending = await now.add(decided=1)
    await until(lambda: bool(now.storage.deliveries[pending.delivery_id].tries))

    next_attempt = now.storage.deliveries[pending.delivery_id]
    assert (next_attempt.tries, next_attempt.error) == (1, "closed")
    assert next_attempt.due_at > now.clock.now()


async def test_a_damaged_page_is_no_failure_of_the_destination_and_no_delivery_is_given_up_for_it(
    now: Delivering,
) -> None:
    await now.add(decided=1)
    now.recorder.then = lambda _: PageDamaged("malformed")
    now.clock.advance(2 * MAX_AGE)
    pending = await now.add(decided=2)
    await until(lambda: bool(now.storage.deliveries[pending.delivery_id].tries))
    now.recorder.then = lambda _: None
    await now.add(decided=3)

    assert now.storage.deliveries.keys() == {pending.delivery_id}
    assert 0 < now.storage.deliveries[pending.delivery_id].due_at - now.clock.now() <= WAIT_DELAY


async def test_a_destination_that_one_project_may_not_use_any_more_stays_open_for_others(now: Delivering) -> None:
    now.projects = ("project of 2",)
    refused = await now.add()
    await until(lambda: bool(now.storage.deliveries[refused.delivery_id].tries))
    await now.add_together(*[SPEC] * 3, function_id=2)
    await now.decided(3)

    assert {pending.function_id for pending in now.recorder.seen} == {2}
    waiting = now.storage.deliveries[refused.delivery_id]
    assert "plugins.test.boxes.one is not for project project of 1" in waiting.error
    assert 0 < waiting.due_at - now.clock.now() <= WAIT_DELAY


async def test_a_delivery_is_tried_again_soon_after_the_clock_was_set_ahead() -> None:
    async with delivering(check=0.02) as now:
        now.recorder.then = lambda _: OSError("closed")
        await now.add(decided=1)
        now.clock.advance(3600)

        await now.decided(2)


async def test_an_undeliverable_outcome_is_given_up_at_once(now: Delivering) -> None:
    now.recorder.then = lambda _: Undeliverable("nobody there")
    pending = await now.add(decided=1)
    await until(lambda: not now.storage.deliveries)

    assert now.storage.given_up[pending.delivery_id].error == "nobody there"


async def test_a_day_after_its_outcome_a_delivery_is_given_up_however_often_it_was_tried(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    pending = await now.add(decided=1)
    tries = 1
    while pending.delivery_id not in now.storage.given_up:
        assert tries < 100
        now.pass_time(MAX_AGE / 10)
        tries += 1
        await now.decided(tries)
        await asyncio.sleep(0)

    assert 10 <= tries <= 12
    assert now.delivery.statistics().given_up == 1


async def test_a_clock_in_doubt_gives_up_no_delivery(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    now.clock.expiry.hold(now.clock.now())
    pending = await now.add()
    now.clock.advance(1e9)
    await now.decided(1)
    await until(lambda: bool(now.storage.deliveries[pending.delivery_id].tries))

    assert now.storage.given_up == {}


async def test_a_slow_destination_does_not_delay_the_others(now: Delivering) -> None:
    first = await now.add()
    slow = asyncio.Event()
    now.recorder.then = lambda pending: slow.wait() if pending == first else None
    for _ in range(5):
        await now.add()
    await now.decided(5)

    assert list(now.storage.deliveries) == [first.delivery_id]
    slow.set()
    await now.decided(6)


async def test_a_hanging_destination_delays_no_other_however_many_deliveries_are_pending(now: Delivering) -> None:
    now.recorder.then = lambda pending: None if pending.destination == OTHER else anyio.sleep_forever()
    for _ in range(PAGE + 1):
        await now.add()
    await until(lambda: len(now.recorder.seen) == AT_ONCE)

    await now.add(OTHER, decided=1)
    assert now.recorder.seen[-1].destination == OTHER


async def test_many_hanging_destinations_delay_no_other() -> None:
    hanging = [DestinationSpec(destination="TEST", param=f'{{"to": "{n}"}}') for n in range(300)]
    async with delivering() as now:
        now.recorder.then = lambda pending: None if pending.destination == OTHER else anyio.sleep_forever()
        await now.add_together(*hanging * 3)
        await until(lambda: len({pending.destination for pending in now.recorder.seen}) == len(hanging))

        await now.add_together(*[OTHER] * 90)
        await now.decided(90)
        assert now.delivery.statistics().under_way <= len(hanging) + SHARED


@pytest.mark.parametrize(("hanging", "each", "begun"), [(8, AT_ONCE, AT_ONCE), (ALL_AT_ONCE, 1, 1)])
async def test_receivers_of_one_project_that_hang_leave_slots_for_those_of_another(
    hanging: int, each: int, begun: int
) -> None:
    specs = [DestinationSpec(destination="TEST", param=f'{{"to": "{n}"}}') for n in range(hanging)]
    async with delivering() as now:
        now.recorder.then = lambda _: anyio.sleep_forever()
        await now.add_together(*specs * each)
        await now.settled()
        taken = now.delivery.statistics().under_way

        await now.add_together(*[OTHER] * AT_ONCE, function_id=2)
        await now.settled()
        assert now.delivery.statistics().under_way == taken + begun


async def test_destinations_that_failed_leave_slots_to_the_others() -> None:
    failing = [DestinationSpec(destination="TEST", param=f'{{"to": "{n}"}}') for n in range(ALL_AT_ONCE // 2)]
    async with delivering() as now:
        now.recorder.then = lambda _: OSError("closed")
        await now.add_together(*failing)
        await now.decided(len(failing))
        now.recorder.then = lambda pending: None if pending.destination == OTHER else anyio.sleep_forever()
        now.pass_time(LONGEST)
        await until(lambda: now.delivery.statistics().under_way == ALL_AT_ONCE // 4)

        await now.add_together(*[OTHER] * 90)
        await now.decided(len(failing) + 90)


async def test_a_destination_that_is_back_gets_all_outcomes_within_ten_seconds() -> None:
    for restarted in (False, True):
        async with delivering() as now:
            if not restarted:
                await now.add(decided=1)
            now.recorder.then = lambda _: OSError("closed")
            pending = await now.add()
            if restarted:  # another engine has tried it often
                now.storage.deliveries[pending.delivery_id] = replace(pending, tries=20)
            for _ in range(200):
                await now.settled()
                now.pass_time(LONGEST / 2)
            tries = now.delivery.statistics().failed
            now.recorder.then = lambda _: None
            for _ in range(2):
                await now.settled()
                now.pass_time(5.0)
            await now.settled()

            assert now.storage.deliveries == {}
            assert tries <= 200 / 2 + 10  # at most one in ten seconds, after the first few


async def test_a_delivery_that_fails_alone_is_tried_more_and_more_seldom(now: Delivering) -> None:
    now.recorder.then = lambda pending: OSError("not this one") if pending.delivery_id == 2 else None
    for _ in range(200):
        await now.add()
        await now.settled()
        now.clock.advance(LONGEST / 2)

    assert now.delivery.statistics().failed < 15


async def test_outcomes_for_a_deleted_function_are_kept_for_a_day_with_one_line_in_the_log(now: Delivering) -> None:
    now.recorder.accepts = FunctionUrn(region="here", project="p", package="default", name="deleted")
    with capture_logs() as logged:
        await now.add_together(*[SPEC] * 30)
        for _ in range(20):
            await now.settled()
            now.pass_time(LONGEST)
    status = now.delivery.destination_status(SPEC)
    lines = [line for line in logged if line["event"] == "delivery failed"]
    now.recorder.accepts = None
    await until(lambda: now.storage.deliveries == {})

    assert now.storage.given_up == {}
    assert now.delivery.statistics().delivered == 30
    assert status.failures > 10
    assert "deleted" in status.problem
    assert len(lines) == 1


async def test_a_failing_destination_gets_one_delivery_at_a_time_until_it_succeeds(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    await now.add(decided=1)
    gate = asyncio.Event()
    now.recorder.then = lambda _: gate.wait()
    for _ in range(5):
        await now.add()
    for _ in range(20):
        await asyncio.sleep(0)
    assert now.delivery.statistics().under_way == 1
    gate.set()

    await now.decided(6)


async def test_pending_deliveries_to_a_destination_that_fails_again_wait_together_and_delay_no_other(
    now: Delivering,
) -> None:
    now.recorder.then = lambda pending: OSError("closed") if pending.destination == SPEC else None
    await now.add(decided=1)
    await now.add_together(SPEC, SPEC, SPEC, SPEC, OTHER)
    await now.decided(3)
    for _ in range(20):
        await asyncio.sleep(0)
    tried = [pending.destination for pending in now.recorder.seen]
    now.recorder.then = lambda _: None
    now.pass_time(LONGEST)
    await now.decided(8)

    assert sorted(tried, key=str) == sorted([SPEC, SPEC, OTHER], key=str)
    assert now.storage.deliveries == {}


async def test_a_delivery_that_waited_for_a_day_behind_a_failing_one_has_its_try_and_is_given_up(
    now: Delivering,
) -> None:
    now.recorder.then = lambda _: OSError("closed")
    await now.add(decided=1)
    await now.add_together(SPEC, SPEC)
    await now.decided(2)
    now.pass_time(MAX_AGE + 10)
    await until(lambda: now.delivery.statistics().given_up == 3)

    assert sorted(pending.tries for pending in now.recorder.seen) == [0, 0, 0, 1, 1]


async def test_a_paused_destination_gets_one_delivery_at_once_on_request(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    await now.add(decided=1)
    await now.add_together(SPEC, SPEC, SPEC, SPEC)
    await now.decided(2)
    now.delivery.probe([SPEC])
    await now.decided(3)
    for _ in range(20):
        await asyncio.sleep(0)
    tried = len(now.recorder.seen)
    now.recorder.then = lambda _: None
    now.delivery.probe([SPEC])
    await now.decided(5)

    assert tried == 3
    assert sorted(pending.tries for pending in now.storage.deliveries.values()) == [1, 1, 1]


async def test_one_is_tried_when_that_is_asked_for_though_another_hangs(now: Delivering) -> None:
    now.recorder.then = lambda _: OSError("closed")
    await now.add(decided=1)
    now.recorder.then = lambda _: anyio.sleep_forever()
    await now.add_together(SPEC, SPEC)
    await until(lambda: len(now.recorder.seen) == 2)
    hanging, waiting = sorted(pending.delivery_id for pending in now.storage.deliveries.values())[1:]
    now.recorder.then = lambda _: None
    now.delivery.probe([SPEC])
    await now.decided(2)
    await until(lambda: waiting not in now.storage.deliveries)

    assert now.delivery.delivery_status(now.storage.deliveries[hanging]).under_way


async def test_a_pending_delivery_shows_whether_its_destination_fails_and_when_it_is_tried_again(
    now: Delivering,
) -> None:
    now.recorder.then = lambda pending: OSError("closed") if pending.destination == SPEC else None
    await now.add(decided=1)
    [first] = now.storage.deliveries.values()
    once = now.delivery.delivery_status(first)
    await now.add_together(SPEC, SPEC)
    await now.decided(2)
    moment, twice = now.clock.now(), now.delivery.delivery_status(first)

    assert (once.failing, once.held_until, once.under_way) == (True, 0.0, False)
    assert (twice.failing, twice.under_way) == (True, False)
    assert moment < twice.held_until <= moment + LONGEST
    assert now.delivery.delivery_status(replace(first, destination=OTHER)) == DeliveryStatus()


async def test_an_invocation_stored_when_the_time_of_its_delivery_is_up_is_queued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with delivering(longest=0.3) as now:
        delivered = now.storage.outbox.delivered

        async def late(pending: PendingDelivery, append: Invocation | None = None) -> None:
            await delivered(pending, append)  # the commit goes on if its caller is cancelled
            await asyncio.sleep(0.6)

        monkeypatch.setattr(now.storage.outbox, "delivered", late)
        now.recorder.accepts = FunctionUrn(region="here", project="p", package="default", name="next")
        await now.add()
        await until(lambda: now.scheduler.statistics().waiting_in_memory == 1)

        [queued] = [row for row in now.storage.rows.values() if row.invocation.function_id == 9]
        assert now.backlog.of(9) == (1, len(queued.invocation.payload))


async def test_more_than_may_be_under_way_follow_as_others_end(now: Delivering) -> None:
    gate = asyncio.Event()
    now.recorder.then = lambda _: gate.wait()
    for _ in range(AT_ONCE + 10):
        await now.add()
    await until(lambda: len(now.recorder.seen) == AT_ONCE)
    for _ in range(10):
        await asyncio.sleep(0)
    assert now.delivery.statistics().under_way == AT_ONCE
    gate.set()

    await now.decided(AT_ONCE + 10)
    assert sorted(pending.delivery_id for pending in now.recorder.seen) == list(range(1, AT_ONCE + 11))


async def test_a_destination_that_hangs_is_left_and_tried_again() -> None:
    async with delivering(longest=0.01) as now:
        now.recorder.then = lambda _: anyio.sleep_forever()
        pending = await now.add()
        await until(lambda: bool(now.storage.deliveries[pending.delivery_id].tries))

        assert now.storage.deliveries[pending.delivery_id].error == "the destination took longer than 0.01 s"
        assert now.delivery.statistics().under_way == 0


async def test_a_record_too_large_for_an_event_goes_without_its_request() -> None:
    async with delivering(largest=1000) as now:
        await now.add(payload=b'"' + b"x" * 1000 + b'"', decided=1)

        record = json.loads(now.recorder.records[0])
        assert len(now.recorder.records[0]) <= 1000
        assert record["request_payload"] == ""
        assert record["request_context"]["request_id"]


# --- circuit breakers ----------------------------------------------------------------------------------------

NOW = 1_700_000_000.0
ONE = DestinationSpec(destination="ONE")


def breakers(failures: int) -> CircuitBreakers:
    """Return breakers whose destination failed so often in a row, each time as soon as a try was allowed."""
    found, now = CircuitBreakers(RetryPolicy(), Random(1)), NOW
    for _ in range(failures):
        now = max(now, found.until(ONE, now))
        found.failed(ONE, now)
    return found


def test_a_destination_is_left_alone_from_its_second_failure_in_a_row_until_it_takes_something() -> None:
    once, twice = breakers(1), breakers(2)

    assert once.until(ONE, NOW) <= NOW
    assert NOW < twice.until(ONE, NOW) <= NOW + LONGEST
    twice.succeeded(ONE)
    assert twice.until(ONE, NOW) <= NOW


def test_a_clock_that_is_set_back_does_not_prolong_how_long_a_destination_is_left_alone() -> None:
    found, earlier = breakers(2), NOW - 3600

    assert found.until(ONE, earlier) <= earlier
    found.failed(ONE, earlier)
    assert earlier < found.until(ONE, earlier) <= earlier + LONGEST


def test_the_state_of_a_destination_names_its_last_failure_and_the_start_of_all() -> None:
    circuits = CircuitBreakers(RetryPolicy(), Random(1))
    never = circuits.status(ONE, NOW)
    circuits.failed(ONE, NOW, "refused")
    once = circuits.status(ONE, NOW)
    circuits.failed(ONE, NOW + 5, "no such host")
    twice = circuits.status(ONE, NOW + 5)
    later = circuits.status(ONE, twice.next_try)
    circuits.succeeded(ONE)

    assert never == DestinationStatus()
    assert (once.state, once.problem, once.since, once.failures) == ("failing", "refused", NOW, 1)
    assert (twice.state, twice.problem, twice.since, twice.failures) == ("paused", "no such host", NOW, 2)
    assert NOW + 5 < twice.next_try <= NOW + 5 + LONGEST
    assert (later.state, later.next_try) == ("failing", 0.0)
    assert circuits.status(ONE, NOW + 6) == DestinationStatus()


# --- records -------------------------------------------------------------------------------------------------

NOT_KEPT = "the result has 300000 bytes, more than 262144, and is not kept"


@pytest.mark.parametrize(
    ("state", "message", "damaged", "error"),
    [
        (State.SUCCESS, NOT_KEPT, frozenset[str](), ""),
        (State.SUCCESS, "", frozenset({"result"}), "the result is damaged on disk and left out"),
        (State.FAIL, "ValueError: no", frozenset({"result"}), "ValueError: no"),
    ],
)
def test_only_failures_and_damage_are_errors(
    tmp_path: Path, state: State, message: str, damaged: frozenset[str], error: str
) -> None:
    catalog = Catalog(MemoryStorage().catalog, CodeStore(tmp_path), SystemClock(), region="here")
    record = Record(
        key=1,
        request_id="r",
        function_id=1,
        version="latest",
        alias="",
        source="API",
        state=state,
        priority=0,
        due_at=1.0,
        message=message,
        damaged=damaged,
    )

    assert json.loads(DeliveryRecords(catalog, "here").encode(record))["response_context"]["function_error"] == error
