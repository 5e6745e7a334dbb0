from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from structlog.testing import capture_logs

from engine.metrics.loop_lag import LoopLag, LoopWatch

STALL = 0.1
DEADLINE = 20.0  #: seconds; only a failing test takes so long


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

    [line] = [one for one in seen if one["event"] == "event loop stalled"]
    assert "in hold_until" in line["stack"]
    assert line["seconds"] >= STALL


async def test_one_hold_is_logged_once_however_long_it_lasts() -> None:
    with capture_logs() as logs:
        async with watched() as lag:
            lag.enter("part")
            hold_until(logs, 1)
            time.sleep(5 * STALL)  # noqa: ASYNC251  (holds the loop)
            seen = list(logs)

    assert [one["event"] for one in seen] == ["event loop stalled"]


async def test_a_loop_that_turns_is_not_logged_while_work_is_in_flight() -> None:
    with capture_logs() as logs:
        async with watched() as lag:
            lag.requests = 1
            lag.enter("part")
            async with asyncio.timeout(DEADLINE):
                for _ in range(40):
                    await asyncio.sleep(STALL / 10)
            lag.requests = 0

    assert [one for one in logs if one["event"] == "event loop stalled" and one["seconds"] < STALL] == []


async def test_the_thread_ends_with_its_task() -> None:
    before = set(threading.enumerate())
    async with watched():
        [thread] = set(threading.enumerate()) - before

    thread.join(DEADLINE)
    assert not thread.is_alive()
