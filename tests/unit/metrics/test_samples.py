"""Samples of the engine by minute, and their store."""

from __future__ import annotations

import math
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from engine.metrics.usage import MINUTES, Usage
from engine.model import Code, Invocation, Mode, Outcome, State
from engine.protocols import Settlement
from engine.resources.usage_store import TABLE, UsageStore
from engine.scheduling.backlog import Backlog, Limits
from tests.doubles import ManualClock
from tests.doubles.store import MemoryResourceStore, MemoryStore
from tests.doubles.writes import MemoryWrites
from tests.support.executing import function

NOON = 1_700_000_000.0 // 86_400 * 86_400 + 43_200
FUNCTION = function("index.handler")
LIMITS = Limits(rows=9, size=9, function_rows=9, function_size=9, sync_rows=9, sync_size=9)


class Counted:
    """Usage with a clock that tests set."""

    def __init__(self, store: MemoryStore | None = None, at: float = NOON) -> None:
        self.clock, self.backlog, self.store = ManualClock(at), Backlog(LIMITS), store or MemoryStore()
        self.usage = Usage(self.clock, self.backlog, lambda function_id: None)
        self.usage_store = UsageStore(self.usage, self.store, MemoryResourceStore())
        self.changes = 0
        self.usage.changed.connect(self.usage_store.note_change)
        self.usage.changed.connect(self.note_change)

    def note_change(self) -> None:
        self.changes += 1

    def accept(self, count: int = 1, mode: Mode = Mode.ASYNC) -> None:
        for _ in range(count):
            self.usage.note_accepted(invocation(mode))

    def accepted(self, minutes: int = 15) -> list[int | None]:
        return [one.sample.accepted if one.sample else None for one in self.usage.periods(minutes)]

    async def stored(self) -> list[str]:
        return [key for key, _ in await self.store.scan(TABLE, limit=2 * MINUTES)]


def invocation(mode: Mode = Mode.ASYNC, due_at: float = NOON) -> Invocation:
    return Invocation(key=1, request_id="r", function_id=1, mode=mode, due_at=due_at)


def test_events_count_in_their_minute() -> None:
    counted = Counted()
    counted.accept(3)
    counted.clock.advance(60)
    counted.accept()
    counted.accept(mode=Mode.SYNC)
    for state in (State.SUCCESS, State.FAIL):
        counted.usage.note_end(Settlement(invocation=invocation(), state=state, outcome=Outcome()))
    counted.usage.note_ends(1, State.FAIL, Code.CANCELLED)
    counted.usage.note_ends(1, State.DISCARD, Code.EXPIRED)
    counted.usage.note_refused()

    before, now = counted.usage.periods(2)
    assert before.sample is not None
    assert now.sample is not None
    assert (before.begin, before.minutes, before.sample.accepted) == (NOON, 1, 3)
    assert (now.sample.accepted, now.sample.called, now.sample.refused) == (1, 1, 1)
    assert (now.sample.succeeded, now.sample.failed, now.sample.discarded, now.sample.ended) == (1, 2, 1, 4)


def test_a_minute_without_events_stores_and_announces_nothing() -> None:
    counted = Counted()
    counted.accept()
    counted.clock.advance(3600)

    assert counted.changes == 0
    assert counted.usage.unsaved() == {}
    assert len(counted.usage.periods(60)) == 60

    counted.accept()

    assert counted.changes == 1
    assert list(counted.usage.unsaved()) == [NOON // 60]


def test_waiting_work_is_known_in_minutes_without_events() -> None:
    counted = Counted()
    counted.accept()
    counted.backlog.add(1, 0, rows=7)
    counted.backlog.remove(1, 0, rows=2)
    counted.usage.note_ends(1, State.SUCCESS, Code.OK, 2)
    counted.clock.advance(180)

    assert [one.waiting for one in counted.usage.periods(5)] == [None, 7, 5, 5, 5]


def test_waits_are_counted_by_their_length() -> None:
    counted = Counted()
    for seconds in (-1.0, 0.0, 0.3, 90.0, math.inf):
        outcome = Outcome(code=0, started_at=NOON + seconds, ended_at=NOON + seconds)
        counted.usage.note_attempt(FUNCTION, invocation(), outcome)

    (now,) = counted.usage.periods(1)
    assert now.sample is not None
    found = now.sample.wait_seconds
    assert (found.count, found.counts[0], found.counts[-1]) == (5, 2, 1)


def test_longer_periods_add_their_minutes() -> None:
    counted = Counted()
    for _ in range(20):
        counted.accept(2)
        counted.clock.advance(60)

    assert [one.sample and one.sample.accepted for one in counted.usage.periods(45, 15)] == [None, 30, 10]
    assert [one.begin for one in counted.usage.periods(45, 15)] == [NOON - 900, NOON, NOON + 900]


def test_a_complete_period_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, decoded = Counted(), []
    for _ in range(MINUTES):
        counted.accept()
        counted.clock.advance(60)

    def decode(body: bytes, **options: Any) -> Any:
        decoded.append(body)
        return undecoded(body, **options)

    undecoded = msgspec.msgpack.decode
    monkeypatch.setattr(msgspec.msgpack, "decode", decode)
    first = counted.usage.periods(MINUTES, 15)
    decoded.clear()
    again = counted.usage.periods(MINUTES, 15)

    assert again == first
    assert len(decoded) < 20


def test_a_kept_sum_follows_a_change_of_its_period() -> None:
    counted = Counted()
    counted.accept(2)
    counted.clock.advance(900)
    before = [one.sample and one.sample.accepted for one in counted.usage.periods(30, 15)]
    counted.clock.advance(-900)
    counted.usage.end_minute()
    counted.accept(3)
    counted.usage.end_minute()
    counted.clock.advance(900)

    assert before == [2, None]
    assert [one.sample and one.sample.accepted for one in counted.usage.periods(30, 15)] == [5, None]


async def test_a_day_is_kept_and_the_oldest_is_deleted_with_the_newest() -> None:
    counted = Counted()
    async with anyio.create_task_group() as tasks:
        await tasks.start(counted.usage_store.run)
        for _ in range(MINUTES + 3):
            counted.accept()
            counted.clock.advance(60)
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
    again.usage.end_minute()

    assert again.accepted(2) == [None, 5]


async def test_a_minute_is_written_once() -> None:
    counted = Counted()
    counted.accept()
    counted.clock.advance(60)
    counted.accept(100)

    unsaved = counted.usage.unsaved()
    counted.usage.note_saved(unsaved)
    counted.accept(100)

    assert len(unsaved) == 1
    assert counted.usage.unsaved() == {}


def test_a_clock_that_is_set_back_a_little_goes_on_with_its_minute() -> None:
    counted = Counted()
    counted.accept()
    counted.clock.advance(-30)
    counted.accept()

    assert counted.changes == 0


def test_a_clock_that_is_set_back_far_drops_what_is_ahead_of_it() -> None:
    counted = Counted()
    counted.accept(2)
    counted.clock.advance(7200)
    counted.accept(4)
    counted.clock.advance(-7140)
    counted.accept()

    assert counted.accepted(2) == [2, 1]
    ahead = NOON // 60 + 120
    assert counted.usage.unsaved()[int(ahead)] is None


def test_a_clock_that_is_set_far_ahead_drops_nothing_while_it_is_in_doubt() -> None:
    counted = Counted()
    counted.clock.expiry.watch(86_400)
    counted.accept(2)
    counted.clock.advance(10 * 365 * 86_400)
    counted.accept()
    counted.clock.advance(-10 * 365 * 86_400 + 60)
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
            counted.accept()
            counted.clock.advance(60)
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
    assert list(counted.usage.unsaved().values()) == [None]
