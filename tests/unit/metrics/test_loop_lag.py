from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from engine.metrics.loop_lag import HELD, LoopLag

DEADLINE = 30.0


async def stopped(lag: LoopLag) -> None:
    async with asyncio.timeout(DEADLINE):
        while lag.measuring:  # noqa: ASYNC110  (the measurement ends without an event)
            await asyncio.sleep(0.01)


async def test_an_idle_engine_measures_nothing() -> None:
    lag = LoopLag()
    lag.enter("part")
    await stopped(lag)
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
    await stopped(lag)


async def test_a_held_loop_is_logged_with_the_last_entry() -> None:
    lag = LoopLag()
    with capture_logs() as logs:
        lag.enter("first")
        lag.enter({"type": "http", "method": "PUT", "path": "/v2/p/fgs/functions"})
        time.sleep(2 * HELD)  # noqa: ASYNC251  (holds the loop)
        await stopped(lag)

    assert [(one["event"], one["last_entry"]) for one in logs] == [("event loop held", "PUT /v2/p/fgs/functions")]
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
        await stopped(lag)

    assert [one["last_entry"] for one in logs] == ["delivery to OBS"]


async def test_a_loop_that_is_held_shortly_is_not_logged() -> None:
    lag = LoopLag()
    with capture_logs() as logs:
        lag.enter("part")
        time.sleep(0.05)  # noqa: ASYNC251  (holds the loop)
        await stopped(lag)

    assert [one for one in logs if one.get("seconds", 1) < HELD] == []
    assert lag.worst > 0
