"""Controls of a function in its instances: recycling by requests and by memory, and the soft timeout."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.executors.pool import Pool
from engine.logs.lines import plain
from engine.model import Code, Function, Outcome
from engine.model.controls import Controls
from tests.support.executing import SOURCE as BASIC
from tests.support.executing import Running, exit_of, function, invocation, is_alive
from tests.support.instances import begin
from tests.support.programs import needs

SOURCE = (
    BASIC
    + """
import asyncio, json, signal


def take(event, context):
    block = b"x" * (event << 20)
    return os.getpid()


async def pause(event, context):
    await asyncio.sleep(0)
    return os.getpid()


def warned(event, context):
    context.on_soft_timeout(lambda: print("soft"))
    while not context.soft_timed_out:
        time.sleep(0.01)
    return json.dumps([context.cancelled, context.cancel_reason])


async def warned_async(event, context):
    time.sleep(event or 0)  # the event loop reads nothing meanwhile
    soft = asyncio.Event()
    context.on_soft_timeout(soft.set)
    await soft.wait()
    return json.dumps([context.cancelled, context.cancel_reason])


def deaf(event, context):
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    while not os.path.exists(event):
        time.sleep(0.01)
    os._exit(3)
"""
)

NODE = """
exports.warned = (event, context, callback) => {
  context.onSoftTimeout(() => callback(null, [context.cancelled, context.cancelReason]));
};
"""

POOL = {"term_grace": 60.0}
pytestmark = pytest.mark.timeout(60)


def control(opened: Pool, **controls: Any) -> None:
    values = Controls(**controls)
    opened.controls_of = lambda function_id: values


async def pids(opened: Pool, asked: Function, *events: Any) -> list[int]:
    outcomes = [await opened.execute(asked, invocation(json.dumps(event))) for event in events]
    assert all(outcome.ok for outcome in outcomes), outcomes
    return [int(outcome.result) for outcome in outcomes]


# --- recycling ---


@pytest.mark.parametrize(
    ("controls", "megabytes", "served", "recycled"),
    [
        ({"recycle_requests": 2}, (1, 1, 1, 1, 1), [2, 2, 1], {"requests": 2, "memory": 0}),
        ({"recycle_memory": 50}, (1, 1, 80, 1), [3, 1], {"requests": 0, "memory": 1}),
        ({}, (80, 80, 80), [3], {"requests": 0, "memory": 0}),
    ],
    ids=["requests", "memory", "no controls"],
)
async def test_an_instance_is_replaced_after_as_many_requests_or_as_much_memory_as_is_set(
    opened: Pool, controls: dict[str, int], megabytes: tuple[int, ...], served: list[int], recycled: dict[str, int]
) -> None:
    control(opened, **controls)

    processes = await pids(opened, function("take", memory_size=128), *megabytes)

    assert [processes.count(pid) for pid in dict.fromkeys(processes)] == served
    assert opened.statistics().recycled == recycled
    if len(served) > 1:
        await exit_of(processes[0])


async def test_a_recycled_instance_ends_when_its_last_request_has_ended(opened: Pool, tmp_path: Path) -> None:
    control(opened, recycle_requests=2)
    asked = function("wait", concurrent_num=3)
    first, second = Running(opened, tmp_path, asked), Running(opened, tmp_path, asked)
    pid = await first.pid()
    await second.pid()
    third = Running(opened, tmp_path, asked)

    assert await third.pid() != pid
    assert (await first.finish()).ok
    assert is_alive(pid)
    assert [(await run.finish()).ok for run in (second, third)] == [True, True]
    await exit_of(pid)


async def test_a_waiting_request_is_not_served_by_a_recycled_instance(opened: Pool, tmp_path: Path) -> None:
    control(opened, recycle_requests=1)
    running, pid = await begin(opened, tmp_path)
    waiting = Running(opened, tmp_path)
    assert (await running.finish()).ok

    assert await waiting.pid() != pid
    assert (await waiting.finish()).ok


@pytest.mark.parametrize(("handler", "concurrency", "most"), [("pid", 1, 3), ("pause", 4, 6)])
async def test_no_request_is_lost_under_load(opened: Pool, handler: str, concurrency: int, most: int) -> None:
    control(opened, recycle_requests=3)
    asked, gate = function(handler, concurrent_num=concurrency), asyncio.Semaphore(8)

    async def one() -> Outcome:
        async with gate:
            return await opened.execute(asked, invocation())

    outcomes = await asyncio.gather(*(one() for _ in range(120)))

    assert {outcome.code for outcome in outcomes} == {Code.OK}
    assert max(Counter(outcome.result for outcome in outcomes).values()) <= most
    assert opened.statistics().recycled["requests"] > 0


# --- the soft timeout ---


@pytest.mark.parametrize(
    ("handler", "runtime", "concurrency"),
    [
        ("warned", "Python3.10", 1),
        ("warned", "Python3.10", 2),
        ("warned_async", "Python3.10", 1),
        ("warned_async", "Python3.10", 2),
        pytest.param("warned", "Node.js18.15", 1, marks=needs("node")),
    ],
)
async def test_a_handler_is_warned_and_goes_on(opened: Pool, handler: str, runtime: str, concurrency: int) -> None:
    control(opened, soft_timeout=0.2)

    outcome = await opened.execute(function(handler, runtime=runtime, concurrent_num=concurrency), invocation())

    assert (outcome.code, json.loads(outcome.result)) == (Code.OK, [False, ""])
    assert b"still running after the soft timeout of 0.2 s" in plain(outcome.log)
    assert opened.statistics().alive == 1


async def test_a_warning_that_is_read_together_with_its_request_is_heard(opened: Pool) -> None:
    control(opened, soft_timeout=0.2)
    asked = function("warned_async", concurrent_num=2)
    blocking = asyncio.ensure_future(opened.execute(asked, invocation("1.0")))
    await asyncio.sleep(0)

    outcomes = [await opened.execute(asked, invocation()), await blocking]

    assert [outcome.code for outcome in outcomes] == [Code.OK, Code.OK]
    assert opened.statistics().alive == 1


async def test_an_attempt_that_exits_before_it_reads_the_warning_is_not_repeated(opened: Pool, tmp_path: Path) -> None:
    control(opened, soft_timeout=0.01)
    request = invocation(json.dumps(str(tmp_path / "leave")))
    task = asyncio.ensure_future(opened.execute(function("deaf"), request))
    while b"soft timeout" not in (opened.running_log(request.key) or b""):  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    (tmp_path / "leave").touch()

    outcome = await task
    assert (outcome.code, opened.statistics().started) == (Code.USER_EXCEPTION, 1)
    assert "exited with status 3" in outcome.message
