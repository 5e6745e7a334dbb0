"""Lag of the event loop, and stalls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from structlog.testing import capture_logs

from engine.metrics.loop_lag import HELD, LoopLag, LoopWatch
from tests.support.waiting import until

DEADLINE = 30.0


async def test_an_idle_engine_measures_nothing() -> None:
    lag = LoopLag()
    lag.enter("part")
    await until(lambda: not lag.measuring)
    before = lag.snapshot().count

    await asyncio.sleep(0.1)

    assert before >= 1
    assert lag.snapshot().count == before


async def test_the_lag_is_measured_while_requests_or_invocations_are_in_flight() -> None:
    running = True
    lag = LoopLag(lambda: running)
    lag.requests = 1
    lag.enter("part")
    await asyncio.sleep(0.1)
    assert lag.measuring

    lag.requests = 0
    await asyncio.sleep(0.1)
    assert lag.measuring

    running = False
    await until(lambda: not lag.measuring)


async def test_a_held_loop_is_logged_with_the_last_entry() -> None:
    lag = LoopLag()
    with capture_logs() as logs:
        lag.enter("first")
        lag.enter({"type": "http", "method": "PUT", "path": "/v2/p/fgs/functions"})
        time.sleep(2 * HELD)  # noqa: ASYNC251  (holds the loop)
        await until(lambda: not lag.measuring)

    assert [(log["event"], log["last_entry"]) for log in logs] == [("event loop held", "PUT /v2/p/fgs/functions")]
    assert lag.worst >= HELD
    assert lag.snapshot().total >= HELD


async def test_the_entry_before_the_previous_measurement_is_named_if_there_is_no_later_one() -> None:
    lag = LoopLag()
    lag.requests = 1
    with capture_logs() as logs:
        lag.enter("delivery to OBS")
        await asyncio.sleep(0.1)
        time.sleep(2 * HELD)  # noqa: ASYNC251  (holds the loop)
        lag.requests = 0
        await until(lambda: not lag.measuring)

    assert [log["last_entry"] for log in logs] == ["delivery to OBS"]


async def test_a_loop_that_is_held_shortly_is_not_logged() -> None:
    lag = LoopLag()
    with capture_logs() as logs:
        lag.enter("part")
        time.sleep(0.05)  # noqa: ASYNC251  (holds the loop)
        await until(lambda: not lag.measuring)

    assert [log for log in logs if log.get("seconds", 1) < HELD] == []
    assert lag.worst > 0


# --- stalls --------------------------------------------------------------------------------------------------


STALL = 0.1


@asynccontextmanager
async def watched() -> AsyncIterator[LoopLag]:
    lag = LoopLag()
    watch = LoopWatch(lag, STALL)
    async with anyio.create_task_group() as tasks:
        await tasks.start(watch.run)
        yield lag
        tasks.cancel_scope.cancel()


def hold_until(logs: Sequence[object], count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(logs) < count and time.monotonic() < deadline:
        time.sleep(0.01)


async def test_code_that_holds_the_loop_is_logged_while_it_does() -> None:
    with capture_logs() as logs:
        async with watched() as lag:
            lag.enter("part")
            hold_until(logs, 1)
            seen = list(logs)

    [line] = [entry for entry in seen if entry["event"] == "event loop stalled"]
    assert "in hold_until" in line["stack"]
    assert line["seconds"] >= STALL


async def test_one_hold_is_logged_once_however_long_it_lasts() -> None:
    with capture_logs() as logs:
        async with watched() as lag:
            lag.enter("part")
            hold_until(logs, 1)
            time.sleep(5 * STALL)  # noqa: ASYNC251  (holds the loop)
            seen = list(logs)

    assert [entry["event"] for entry in seen] == ["event loop stalled"]


async def test_a_loop_that_turns_is_not_logged_while_work_is_in_flight() -> None:
    with capture_logs() as logs:
        async with watched() as lag:
            lag.requests = 1
            lag.enter("part")
            async with asyncio.timeout(DEADLINE):
                for _ in range(40):
                    await asyncio.sleep(STALL / 10)
            lag.requests = 0

    assert [log for log in logs if log["event"] == "event loop stalled" and log["seconds"] < STALL] == []


async def test_the_thread_ends_with_its_task() -> None:
    before = set(threading.enumerate())
    async with watched():
        [thread] = set(threading.enumerate()) - before

    thread.join(DEADLINE)
    assert not thread.is_alive()
