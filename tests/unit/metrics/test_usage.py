"""Usage of functions by minute and by month."""

from __future__ import annotations

import anyio

from engine.metrics import usage
from engine.metrics.usage import Usage
from engine.model import Code, Outcome, State
from engine.protocols import Settlement, StoredResource
from engine.resources.usage_store import UsageStore
from engine.scheduling.backlog import Backlog, Limits
from tests.doubles import ManualClock
from tests.doubles.store import MemoryResourceStore, MemoryStore
from tests.support.builders import a_function, waiting

NOON = 1_700_000_000.0 // 86_400 * 86_400 + 43_200


FUNCTION = a_function(function_id=1, name="used")


INVOCATION = waiting(1)
LIMITS = Limits(rows=9, size=9, function_rows=9, function_size=9, sync_rows=9, sync_size=9)


def ended(moment: float, seconds: float = 1.0, code: int = 0) -> Outcome:
    return Outcome(code=code, started_at=moment - seconds, ended_at=moment)


class Counted(Usage):
    """Usage with a clock that tests set."""

    def __init__(self, project: str | None = "project") -> None:
        self.clock = ManualClock(NOON)
        super().__init__(self.clock, Backlog(LIMITS), lambda function_id: project)

    def count(self, *outcomes: Outcome) -> None:
        """Count attempts of a function, each at its end."""
        for outcome in outcomes:
            self.go_to(outcome.ended_at)
            self.note_attempt(FUNCTION, INVOCATION, outcome)

    def go_to(self, moment: float) -> None:
        self.clock.advance(moment - self.clock.now())


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
