"""Usage of functions by minute and by month, samples of the engine by minute, and their store."""

from __future__ import annotations

import math
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from engine.metrics import usage
from engine.metrics.usage import MINUTES, Usage
from engine.model import Code, Mode, Outcome, State
from engine.protocols import Settlement, StoredResource
from engine.resources.usage_store import TABLE, UsageStore
from engine.scheduling.backlog import Backlog, Limits
from tests.doubles import ManualClock
from tests.doubles.store import MemoryResourceStore, MemoryStore
from tests.doubles.writes import MemoryWrites
from tests.support.builders import a_function, waiting

NOON = 1_700_000_000.0 // 86_400 * 86_400 + 43_200
FUNCTION = a_function(function_id=1, name="used")
INVOCATION = waiting(1)
LIMITS = Limits(rows=9, size=9, function_rows=9, function_size=9, sync_rows=9, sync_size=9)


def ended(moment: float, seconds: float = 1.0, code: int = 0) -> Outcome:
    return Outcome(code=code, started_at=moment - seconds, ended_at=moment)


class Counted(Usage):
    """Usage with a clock that tests set, and its store."""

    def __init__(self, store: MemoryStore | None = None, at: float = NOON, project: str | None = "project") -> None:
        self.clock, self.backlog, self.store = ManualClock(at), Backlog(LIMITS), store or MemoryStore()
        super().__init__(self.clock, self.backlog, lambda function_id: project)
        self.usage_store, self.changes = UsageStore(self, self.store, MemoryResourceStore()), 0
        self.changed.connect(self.usage_store.note_change)
        self.changed.connect(self.note_change)

    def note_change(self) -> None:
        self.changes += 1

    def count(self, *outcomes: Outcome) -> None:
        """Count attempts of a function, each at its end."""
        for outcome in outcomes:
            self.go_to(outcome.ended_at)
            self.note_attempt(FUNCTION, INVOCATION, outcome)

    def go_to(self, moment: float) -> None:
        self.clock.advance(moment - self.clock.now())

    def accept(self, count: int = 1, mode: Mode = Mode.ASYNC, *, then: float = 0.0) -> None:
        """Accept ``count`` invocations. Then let so many seconds pass."""
        for _ in range(count):
            self.note_accepted(waiting(1, mode=mode))
        self.clock.advance(then)

    def accepted(self, minutes: int = 15) -> list[int | None]:
        return [period.sample.accepted if period.sample else None for period in self.periods(minutes)]

    async def stored(self) -> list[str]:
        return [key for key, _ in await self.store.scan(TABLE, limit=2 * MINUTES)]


def used(*outcomes: Outcome) -> Counted:
    counted = Counted()
    counted.count(*outcomes)
    return counted


def test_attempts_are_counted_in_the_minute_in_which_they_end() -> None:
    counted = used(ended(NOON), ended(NOON + 59.9, 3.0, Code.USER_EXCEPTION), ended(NOON + 60, code=Code.ENGINE))

    first, second, third = counted.stretches([1], NOON, NOON + 120)

    assert first.tally is not None
    assert second.tally is not None
    assert (first.tally.count, first.tally.function_errors, first.tally.system_errors) == (2, 1, 0)
    assert (first.tally.shortest, first.tally.longest, first.tally.seconds) == (1.0, 3.0, 4.0)
    assert (second.tally.count, second.tally.system_errors, third.tally) == (1, 1, None)


def test_a_long_time_comes_in_so_many_stretches() -> None:
    counted = used(*(ended(NOON + 60 * minute) for minute in range(90)))

    stretches = counted.stretches([1], NOON, NOON + 89 * 60, count=60)

    assert [stretch.minutes for stretch in stretches] == [2] * 45
    assert {stretch.tally.count for stretch in stretches if stretch.tally} == {2}


def test_usage_of_other_functions_is_not_counted() -> None:
    assert 2 not in used(ended(NOON)).totals(NOON, NOON)


def test_totals_are_of_the_minutes_that_are_asked_for() -> None:
    counted = used(ended(NOON - 60), ended(NOON), ended(NOON + 1), ended(NOON + 60))

    assert counted.totals(NOON, NOON + 59)[1].count == 2


def test_nothing_happened_in_a_time_that_ends_before_it_begins() -> None:
    assert not used(ended(NOON)).totals(NOON, NOON - 86_400)


def test_refusals_are_counted_without_attempts() -> None:
    counted = used()
    counted.note_refused(1)

    whole = counted.totals(NOON, NOON)[1]

    assert (whole.rejects, whole.count) == (1, 0)


def test_minutes_are_kept_for_a_day() -> None:
    counted = used(ended(NOON), ended(NOON + usage.MINUTES * 60))

    assert not counted.totals(NOON, NOON)
    assert counted.totals(NOON, NOON + 86_400)[1].count == 1


def test_memory_is_bounded_also_with_many_functions() -> None:
    counted = Counted()
    for minute in range(3):
        counted.go_to(NOON + minute * 60)
        for number in range(usage.TALLIES // 2 + 1):
            counted.note_refused(number)

    counted.go_to(NOON + 180)
    counted.note_refused(0)

    assert not counted.totals(NOON, NOON + 60)
    assert counted.totals(NOON + 120, NOON + 120)[1].rejects == 1


def test_a_month_adds_up_its_minutes_and_the_running_one() -> None:
    counted = used(ended(NOON, 2.0), ended(NOON + 60, 6.0))

    (month,) = counted.months("project")

    assert (month.date, month.count, month.gb_seconds) == ("2023-11", 2, 1.0)
    assert counted.months("another") == []


async def test_months_outlive_the_engine_and_are_written_only_when_they_change() -> None:
    store, counted = MemoryResourceStore(), used(ended(NOON, 2.0))
    async with anyio.create_task_group() as tasks:
        first = UsageStore(counted, MemoryStore(), store)
        counted.changed.connect(first.note_change)
        await first.load()
        await tasks.start(first.run)
        counted.count(ended(NOON + 60, 6.0))
        tasks.cancel_scope.cancel()

    (row,) = await store.load("usage")
    again = Counted()
    second = UsageStore(again, MemoryStore(), store)
    await second.load()
    again.count(ended(NOON + 120, 8.0))

    assert (row.owner, row.id) == ("project:project", "2023-11")
    assert [(month.count, month.gb_seconds) for month in again.months("project")] == [(3, 2.0)]


async def test_a_month_is_written_while_the_engine_runs_and_gone_when_it_is_too_old() -> None:
    counted, written = used(), anyio.Event()

    class Store(MemoryResourceStore):
        async def put(self, resource: StoredResource) -> None:
            await super().put(resource)
            if resource.id == "2024-11":
                written.set()

    store = Store()
    async with anyio.create_task_group() as tasks:
        months = UsageStore(counted, MemoryStore(), store)
        counted.changed.connect(months.note_change)
        await months.load()
        await tasks.start(months.run)
        for month in range(13):
            counted.count(ended(NOON + month * 30.5 * 86_400))
        counted.count(ended(NOON + 12 * 30.5 * 86_400 + 60))
        await written.wait()
        tasks.cancel_scope.cancel()

    assert [row.id for row in await store.load("usage")][::11] == ["2023-12", "2024-11"]


def test_usage_of_a_deleted_function_is_in_no_month() -> None:
    counted = Counted(project=None)
    counted.count(ended(NOON))

    counted.count(ended(NOON + 60))

    assert counted.months("project") == []


def test_failures_are_counted_over_the_whole_day() -> None:
    counted = used(ended(NOON, code=Code.USER_EXCEPTION), ended(NOON + 3600, code=Code.ENGINE), ended(NOON + 3660))

    assert dict(counted.sums("errors")) == {FUNCTION.function_id: 2}
    assert dict(counted.sums("errors", NOON + 3600)) == {FUNCTION.function_id: 1}
    assert dict(used(ended(NOON)).sums("errors")) == {}


def test_what_became_too_old_is_counted_by_function() -> None:
    counted = used()
    counted.note_ends(1, State.DISCARD, Code.EXPIRED, 3)
    counted.note_ends(1, State.DISCARD, Code.FUNCTION_MISSING)
    counted.note_end(Settlement(invocation=INVOCATION, state=State.DISCARD, outcome=Outcome(code=Code.EXPIRED)))

    assert dict(counted.sums("expired")) == {1: 4}


# --- samples of the engine --------------------------------------------------------------------------------


def test_events_count_in_their_minute() -> None:
    counted = Counted()
    counted.accept(3, then=60)
    counted.accept()
    counted.accept(mode=Mode.SYNC)
    for state in (State.SUCCESS, State.FAIL):
        counted.note_end(Settlement(invocation=waiting(1, due_at=NOON), state=state, outcome=Outcome()))
    counted.note_ends(1, State.FAIL, Code.CANCELLED)
    counted.note_ends(1, State.DISCARD, Code.EXPIRED)
    counted.note_refused()

    before, now = counted.periods(2)
    assert before.sample is not None
    assert now.sample is not None
    assert (before.begin, before.minutes, before.sample.accepted) == (NOON, 1, 3)
    assert (now.sample.accepted, now.sample.called, now.sample.refused) == (1, 1, 1)
    assert (now.sample.succeeded, now.sample.failed, now.sample.discarded, now.sample.ended) == (1, 2, 1, 4)


def test_a_minute_without_events_stores_and_announces_nothing() -> None:
    counted = Counted()
    counted.accept(then=3600)

    assert counted.changes == 0
    assert counted.unsaved() == {}
    assert len(counted.periods(60)) == 60

    counted.accept()

    assert counted.changes == 1
    assert list(counted.unsaved()) == [NOON // 60]


def test_waiting_work_is_known_in_minutes_without_events() -> None:
    counted = Counted()
    counted.accept()
    counted.backlog.add(1, 0, rows=7)
    counted.backlog.remove(1, 0, rows=2)
    counted.note_ends(1, State.SUCCESS, Code.OK, 2)
    counted.clock.advance(180)

    assert [period.waiting for period in counted.periods(5)] == [None, 7, 5, 5, 5]


def test_waits_are_counted_by_their_length() -> None:
    counted = Counted()
    for seconds in (-1.0, 0.0, 0.3, 90.0, math.inf):
        outcome = Outcome(code=0, started_at=NOON + seconds, ended_at=NOON + seconds)
        counted.note_attempt(FUNCTION, waiting(1, due_at=NOON), outcome)

    (now,) = counted.periods(1)
    assert now.sample is not None
    waits = now.sample.wait_seconds
    assert (waits.count, waits.counts[0], waits.counts[-1]) == (5, 2, 1)


def test_longer_periods_add_their_minutes() -> None:
    counted = Counted()
    for _ in range(20):
        counted.accept(2, then=60)

    assert [period.sample and period.sample.accepted for period in counted.periods(45, 15)] == [None, 30, 10]
    assert [period.begin for period in counted.periods(45, 15)] == [NOON - 900, NOON, NOON + 900]


def test_a_complete_period_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, decoded = Counted(), []
    for _ in range(MINUTES):
        counted.accept(then=60)

    def decode(body: bytes, **options: Any) -> Any:
        decoded.append(body)
        return undecoded(body, **options)

    undecoded = msgspec.msgpack.decode
    monkeypatch.setattr(msgspec.msgpack, "decode", decode)
    first = counted.periods(MINUTES, 15)
    decoded.clear()
    again = counted.periods(MINUTES, 15)

    assert again == first
    assert len(decoded) < 20


def test_a_kept_sum_follows_a_change_of_its_period() -> None:
    counted = Counted()
    counted.accept(2, then=900)
    before = [period.sample and period.sample.accepted for period in counted.periods(30, 15)]
    counted.clock.advance(-900)
    counted.end_minute()
    counted.accept(3)
    counted.end_minute()
    counted.clock.advance(900)

    assert before == [2, None]
    assert [period.sample and period.sample.accepted for period in counted.periods(30, 15)] == [5, None]


async def test_a_day_is_kept_and_the_oldest_is_deleted_with_the_newest() -> None:
    counted = Counted()
    async with anyio.create_task_group() as tasks:
        await tasks.start(counted.usage_store.run)
        for _ in range(MINUTES + 3):
            counted.accept(then=60)
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    stored = await counted.stored()
    assert len(stored) == MINUTES
    assert int(stored[-1]) == NOON // 60 + MINUTES + 2


async def test_samples_are_read_again_after_a_restart_within_their_minute() -> None:
    first = Counted()
    first.accept(2)
    async with anyio.create_task_group() as tasks:
        await tasks.start(first.usage_store.run)
        tasks.cancel_scope.cancel()

    again = Counted(first.store, NOON + 30)
    await again.usage_store.load()
    again.accept(3)

    assert again.accepted(2) == [None, 5]
    again.end_minute()

    assert again.accepted(2) == [None, 5]


async def test_a_minute_is_written_once() -> None:
    counted = Counted()
    counted.accept(then=60)
    counted.accept(100)

    unsaved = counted.unsaved()
    counted.note_saved(unsaved)
    counted.accept(100)

    assert len(unsaved) == 1
    assert counted.unsaved() == {}


def test_a_clock_that_is_set_back_a_little_goes_on_with_its_minute() -> None:
    counted = Counted()
    counted.accept(then=-30)
    counted.accept()

    assert counted.changes == 0


def test_a_clock_that_is_set_back_far_drops_what_is_ahead_of_it() -> None:
    counted = Counted()
    counted.accept(2, then=7200)
    counted.accept(4, then=-7140)
    counted.accept()

    assert counted.accepted(2) == [2, 1]
    ahead = NOON // 60 + 120
    assert counted.unsaved()[int(ahead)] is None


def test_a_clock_that_is_set_far_ahead_drops_nothing_while_it_is_in_doubt() -> None:
    counted = Counted()
    counted.clock.expiry.watch(86_400)
    counted.accept(2, then=10 * 365 * 86_400)
    counted.accept(then=-10 * 365 * 86_400 + 60)
    counted.accept()
    counted.clock.expiry.release()

    assert counted.accepted(2) == [2, 1]


async def test_samples_that_could_not_be_written_are_written_later() -> None:
    writes = MemoryWrites()
    counted = Counted(MemoryStore(writes))
    async with anyio.create_task_group() as tasks:
        await tasks.start(counted.usage_store.run)
        writes.fail("no space")
        for _ in range(2):
            counted.accept(then=60)
            await anyio.wait_all_tasks_blocked()
        writes.heal()
        counted.accept()
        await anyio.wait_all_tasks_blocked()

        assert await counted.stored() == [f"{NOON // 60 + minute:010.0f}" for minute in range(2)]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\x99\x01\x01\x01\x01\x01\x01\x01\x01\x91\x01"])
async def test_a_sample_that_cannot_be_read_is_deleted_later(body: bytes) -> None:
    counted = Counted()
    await counted.store.write(TABLE, {f"{int(NOON // 60):010}": body, "no number": b""})
    await counted.usage_store.load()

    assert counted.accepted(1) == [None]
    assert list(counted.unsaved().values()) == [None]
