"""Start rates: never more starts than burst and rate allow, and no wait without a reason."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Invocation, Mode
from engine.scheduling.function_queue import Entry
from engine.scheduling.rates import Rates
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler, TokenTimer
from tests.doubles import ManualClock, MemoryStorage
from tests.support.waiting import until

RATES = st.sampled_from([0.001, 0.3, 1.0, 7.0, 1000.0, 1e6])


@given(RATES, st.integers(1, 20), st.lists(st.floats(0.0, 3.0), max_size=60), st.floats(0.0, 1e9))
def test_no_span_of_time_has_more_starts_than_its_rate_and_one_burst(
    rate: float, burst: int, pauses: list[float], begin: float
) -> None:
    rates, now, starts = Rates(), begin, list[float]()
    spent = rates.set(1, rate, burst, now)
    for pause in pauses:
        now += pause / rate
        spent = spent and 1 not in rates.renewed(now)
        if not spent:
            starts.append(now)
            spent = rates.take(1, now)

    for first, since in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= burst + rate * (starts[last] - since) + 1 + 1e-3


@given(RATES, st.integers(1, 20), st.floats(0.0, 1e6))
def test_a_spent_bucket_is_renewed_in_the_time_of_one_start(rate: float, burst: int, begin: float) -> None:
    rates = Rates()
    rates.set(1, rate, burst, begin)
    taken = next(number for number in range(1, 100) if rates.take(1, begin))
    moment = rates.next_token()

    assert taken == burst
    assert moment is not None
    assert moment - begin == pytest.approx(1 / rate, abs=1e-3, rel=1e-3)
    renewed = list[int]()
    while (moment := rates.next_token() or 0.0) and len(renewed) < 5:
        renewed += rates.renewed(moment)
    assert renewed == [1]


def test_a_new_rate_keeps_the_tokens_and_none_ends_the_limit() -> None:
    rates = Rates()
    rates.set(1, 1.0, 3, 0.0)
    rates.take(1, 0.0)

    assert not rates.set(1, 0.5, 3, 0.0)
    assert not rates.take(1, 0.0)
    assert rates.take(1, 0.0)
    assert rates.next_token(1) == 2.0
    assert rates.set(1, 10.0, 3, 1.0)
    assert rates.next_token() == pytest.approx(1.05)
    assert not rates.set(1, 0.0, 1, 1.0)
    assert (rates.next_token(), bool(rates)) == (None, False)


# --- in the run queue ---------------------------------------------------------------------------------------


def entry(key: int, function_id: int = 1, mode: Mode = Mode.ASYNC) -> Entry:
    return Entry(Invocation(key=key, request_id=str(key), function_id=function_id, mode=mode))


def queue(**rates: float) -> RunQueue:
    made = RunQueue(slots=10, sync_slots=1, memory=10_000)
    for name, rate in rates.items():
        made.set_rate(int(name[1:]), rate, 1, 0.0)
    return made


def keys(made: RunQueue, now: float) -> list[int]:
    """Return the keys of all entries that may start at ``now``."""
    ready = list[int]()
    while (popped := made.pop(now=now)) is not None:
        ready.append(popped.invocation.key)
    return ready


def test_starts_wait_for_the_rate_of_their_function_and_others_do_not() -> None:
    made = queue(f1=2.0)
    for key in (1, 2, 3):
        made.push(entry(key))
        made.push(entry(10 + key, 2))

    assert sorted(keys(made, 0.0)) == [1, 11, 12, 13]
    made.renew(0.4)
    assert keys(made, 0.4) == []
    assert made.next_token() == 0.5
    made.renew(0.5)
    assert keys(made, 0.5) == [2]
    made.renew(5.0)
    assert keys(made, 5.0) == [3]


def test_synchronous_calls_take_no_token_and_wait_for_none() -> None:
    made = queue(f1=1.0)
    for key in (1, 2):
        made.push(entry(key))
        made.push(entry(10 + key, mode=Mode.SYNC))

    assert keys(made, 0.0) == [11, 12, 1]


def test_a_function_without_a_rate_any_more_starts_at_once() -> None:
    made = queue(f1=0.1)
    for key in (1, 2, 3):
        made.push(entry(key))
    assert keys(made, 0.0) == [1]

    made.set_rate(1, 0.0, 1, 0.0)
    assert keys(made, 0.0) == [2, 3]
    assert not made.rated


def test_a_deleted_function_leaves_no_rate() -> None:
    made = queue(f1=0.1)
    made.drop(1)

    assert not made.rated


# --- in the scheduler ---------------------------------------------------------------------------------------


async def test_the_scheduler_hands_out_starts_as_the_rate_allows_and_then_sleeps() -> None:
    made = queue()
    scheduler = Scheduler(made, MemoryStorage().window, ManualClock())
    loop = asyncio.get_running_loop()
    scheduler.set_rate(1, 50.0, 2)
    began = loop.time()
    for key in range(1, 6):
        scheduler.push(entry(key).invocation)
    taken = list[float]()
    async with asyncio.timeout(30):
        for _ in range(5):
            await scheduler.take()
            taken.append(loop.time() - began)

    assert taken[1] < taken[-1]
    assert taken[-1] >= 3 / 50.0 - 0.001
    assert all(earlier <= later for earlier, later in pairwise(taken))
    await until(lambda: made.next_token() is None)
    assert scheduler._tokens._timer is None


async def test_a_look_for_possible_work_uses_up_no_rate() -> None:
    made = queue()
    scheduler = Scheduler(made, MemoryStorage().window, ManualClock())
    scheduler.set_rate(1, 0.001, 1)
    scheduler.push(entry(1).invocation)
    scheduler.push(entry(2).invocation)

    for _ in range(5):
        assert scheduler.possible_work() is not None
    await scheduler.take()
    assert scheduler.possible_work() is None, "the function has used up its rate"
    scheduler._tokens.cancel()


async def test_a_parked_invocation_gives_its_token_back() -> None:
    scheduler = Scheduler(queue(), MemoryStorage().window, ManualClock())
    scheduler.set_rate(1, 0.001, 1)
    scheduler.push(entry(1).invocation)
    scheduler.park(await scheduler.take())
    scheduler.unpark()

    async with asyncio.timeout(30):
        assert (await scheduler.take()).invocation.key == 1
    scheduler._tokens.cancel()


# --- the timer of tokens -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is the loop in production there")
def test_a_token_that_is_due_at_once_sets_the_timer_again_and_again() -> None:
    import uvloop

    async def renewed_times() -> int:
        loop, left, done = asyncio.get_running_loop(), [3, 2, 1], asyncio.Event()
        queue: Any = SimpleNamespace(next_token=lambda: loop.time() if left else None, renew=lambda now: left.pop())

        def renewed() -> None:
            timer.set()  # as a dispatch does, before the timer sets itself
            if not left:
                done.set()

        timer = TokenTimer(queue, renewed)
        timer.set()
        timer.set()
        await asyncio.wait_for(done.wait(), 30)
        return 3 - len(left)

    assert uvloop.run(renewed_times()) == 3
