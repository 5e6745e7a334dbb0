"""Instances that serve several requests at a time, their start and their end."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from engine.executors.logs import LogFiles
from engine.executors.outcomes import MAX_COLLATERAL
from engine.executors.pool import Pool
from engine.logs.lines import plain
from engine.model import Code, Function, Outcome
from tests.support.executing import SOURCE as BASIC
from tests.support.executing import Running, exit_of, function, invocation, is_alive, launched, pid_of, pool
from tests.support.instances import begin
from tests.support.triggering import until

SOURCE = (
    BASIC
    + """
import asyncio, pathlib, subprocess

HERE = pathlib.Path(__file__).parent


def dying(context):
    os._exit(5)


def never(context):
    raise RuntimeError("never")


def third_time(context):
    tries = HERE / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    print("try", len(tries.read_text()))
    if len(tries.read_text()) < 3:
        raise RuntimeError("not yet")


def either(event, context):
    return wait(event, context) if event else os.getpid()


def raw(event, context):
    os.write(2, b"raw\\n")


def endless():
    (HERE / "said").write_text("still")
    while True:
        time.sleep(60)


async def mixed(event, context):
    number = event["number"]
    print("begin", number)
    await asyncio.sleep(event["seconds"])
    if number % 17 == 0:
        subprocess.run(["echo", "raw"])
    if number % 23 == 0:
        os._exit(3)
    if number % 11 == 0:
        raise ValueError(number)
    print("end", number)
    return number
"""
)


def shared(concurrency: int = 2, **fields: object) -> Function:
    return function("wait", concurrent_num=concurrency, **fields)


# --- choice of the instance ---


async def test_an_instance_is_filled_before_another_is_started(opened: Pool, tmp_path: Path) -> None:
    running = []
    for _ in range(3):
        running.append(Running(opened, tmp_path, shared()))
        await running[-1].pid()
    outcomes = [await run.finish() for run in running]

    pids = [int(outcome.result) for outcome in outcomes]
    assert (pids[0] == pids[1], pids[1] == pids[2], opened.statistics().started) == (True, False, 2)
    assert (opened.statistics().idle, opened.statistics().busy) == (2, 0)


async def test_a_request_waits_for_an_instance_that_is_being_kept_at_hand(opened: Pool) -> None:
    await pid_of(opened)
    await opened.retire(1)  # the interpreter is resolved by now, so that the next start begins at once
    warming = asyncio.ensure_future(opened.warm(function("pid")))
    await asyncio.sleep(0)

    assert await pid_of(opened) > 0
    assert (await warming, opened.statistics().started) == (True, 2)


async def test_a_retired_instance_goes_when_its_last_request_is_done(opened: Pool, tmp_path: Path) -> None:
    first, second = Running(opened, tmp_path, shared()), Running(opened, tmp_path, shared())
    pid = await first.pid()
    await second.pid()
    await opened.retire(1)
    await first.finish()

    assert is_alive(pid)
    assert (await second.finish()).ok
    await exit_of(pid)


# --- failure of one of several requests ---


async def beside_an_answer(opened: Pool, folder: Path) -> tuple[Running, asyncio.Future[Outcome]]:
    """Return a running call and its neighbour, whose answer is there while the loop has not read it yet."""
    asked = function("either", concurrent_num=2)
    running, _ = await begin(opened, folder, asked)
    answered = asyncio.ensure_future(opened.execute(asked, invocation()))
    await asyncio.sleep(0)
    select.select([launched(opened).channel._fd], [], [])  # blocks the loop
    return running, answered


async def test_an_answer_that_is_there_counts_although_a_neighbour_is_cancelled(opened: Pool, tmp_path: Path) -> None:
    running, answered = await beside_an_answer(opened, tmp_path)

    assert opened.cancel(running.invocation.key)
    assert [(await running.outcome).code, (await answered).code] == [Code.CANCELLED, Code.OK]


async def test_a_request_given_up_as_its_answer_arrives_costs_its_neighbour_no_retry(
    opened: Pool, tmp_path: Path
) -> None:
    running, given_up = await beside_an_answer(opened, tmp_path)
    await asyncio.sleep(0)  # the loop reads the answer in this turn, after this task
    given_up.cancel()

    outcome = await running.outcome
    assert (outcome.code, "was abandoned" in outcome.message) == (Code.ENGINE, True)


async def test_the_timeout_of_one_costs_the_others_no_retry(opened: Pool, tmp_path: Path) -> None:
    await opened.warm(shared(revision=1))
    first = Running(opened, tmp_path, shared(timeout=1, revision=1))
    second = Running(opened, tmp_path, shared(timeout=1, revision=1))
    outcomes = [await first.outcome, await second.outcome]

    assert [outcome.code for outcome in outcomes] == [Code.TIMEOUT, Code.ENGINE]
    assert (outcomes[1].engine_fault, "ran too long" in outcomes[1].message) == (True, True)


async def test_a_death_among_several_is_nobodys_fault_until_the_third_time(opened: Pool, tmp_path: Path) -> None:
    unlucky, codes = invocation(), []
    for _ in range(MAX_COLLATERAL):
        other, pid = await begin(opened, tmp_path, shared())
        running, _ = await begin(opened, tmp_path, shared(), asked_as=unlucky)
        os.kill(pid, signal.SIGKILL)
        codes.append(((await running.outcome).code, (await other.outcome).code))

    assert codes == [(Code.ENGINE, Code.ENGINE)] * 2 + [(Code.USER_EXCEPTION, Code.ENGINE)]


async def test_a_request_given_up_at_any_step_leaves_its_neighbour_an_answer(opened: Pool) -> None:
    await opened.check_runtime("Python3.10")
    codes = set()
    for steps in range(30):
        asked = function("pid", concurrent_num=2, revision=steps)
        given_up, other = (asyncio.ensure_future(opened.execute(asked, invocation())) for _ in range(2))
        for _ in range(steps):
            await asyncio.sleep(0.001 if steps % 2 else 0)
        given_up.cancel()
        codes.add((await other).code)
        await asyncio.wait([given_up])

    assert codes <= {Code.OK, Code.ENGINE}
    seen = opened.statistics()
    assert (seen.busy, seen.starting, seen.alive) == (0, 0, seen.idle)


# --- start ---


async def test_an_initializer_is_tried_three_times_each_on_a_new_instance(opened: Pool) -> None:
    outcome = await opened.execute(function("pid", initializer_handler="index.third_time"), invocation())

    assert (outcome.code, opened.statistics().started) == (Code.OK, 3)
    assert plain(outcome.log) == b"try 1\ntry 2\ntry 3\n"


@pytest.mark.parametrize(
    ("initializer", "code", "started"),
    [("dying", Code.INIT_FAILED, 3), ("never", Code.INITIALIZER_ERROR, 3), ("missing", Code.ENTRY_NOT_FOUND, 1)],
)
async def test_a_start_that_fails_is_tried_on_new_instances_as_long_as_that_may_help(
    opened: Pool, initializer: str, code: Code, started: int
) -> None:
    outcome = await opened.execute(function("pid", initializer_handler=f"index.{initializer}"), invocation())

    assert (outcome.code, opened.statistics().started) == (code, started)


# --- end ---


async def test_a_pre_stop_hook_without_end_is_cut_off(opened: Pool, tmp_path: Path) -> None:
    pid = await pid_of(opened, pre_stop_handler="index.endless", pre_stop_timeout=3)

    await opened.drain()

    assert (is_alive(pid), (tmp_path / "code" / "said").read_text()) == (False, "still")


async def test_a_pool_that_closes_waits_for_no_pre_stop_hook(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE) as opened:
        pid = await pid_of(opened, pre_stop_handler="index.endless", pre_stop_timeout=90)

    assert not is_alive(pid)


async def test_raw_output_of_an_instance_of_several_is_the_instances_own(tmp_path: Path) -> None:
    asked = function("raw", concurrent_num=2)
    async with pool(tmp_path, SOURCE) as opened:
        outcome = await opened.execute(asked, invocation())
        await opened.drain()

    left = LogFiles(tmp_path / "logs", 1 << 20).read_instances(asked.function_id)
    assert (outcome.log, plain(left)) == (b"", b"raw\n")


# --- failures, cancellations and kills at random ---

REQUESTS, AT_ONCE = 600, 12
ALLOWED = {Code.OK, Code.USER_EXCEPTION, Code.CANCELLED, Code.ENGINE, Code.TIMEOUT, Code.INIT_FAILED}


class Storm:
    def __init__(self, opened: Pool, asked: Function, seed: int) -> None:
        self.pool, self.asked, self.random = opened, asked, Random(seed)
        self.numbers = iter(range(1, REQUESTS + 1))
        self.live: list[int] = []
        self.codes: Counter[int] = Counter()

    async def requests(self) -> None:
        for number in self.numbers:
            seconds = 5 if number % 101 == 0 else self.random.choice([0, 0.005, 0.02])
            request = invocation(json.dumps({"number": number, "seconds": seconds}))
            self.live.append(request.key)
            outcome = await self.pool.execute(self.asked, request)
            self.live.remove(request.key)
            self.codes[outcome.code] += 1
            if outcome.ok:
                said = plain(outcome.log).decode().splitlines()
                assert (int(outcome.result), said) == (number, [f"begin {number}", f"end {number}"])

    async def trouble(self) -> None:
        while True:
            await asyncio.sleep(0.03)
            match self.random.randrange(12):
                case 0 | 1 | 2 if self.live:
                    self.pool.cancel(self.random.choice(self.live))
                case 3 if pids := [instance.pid for instance in self.pool.allocator.alive if instance.pid]:
                    os.kill(self.random.choice(pids), signal.SIGKILL)
                case 4:
                    await self.pool.retire(1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_in_a_storm_every_request_has_its_own_answer_and_lines(tmp_path: Path, seed: int) -> None:
    async with pool(tmp_path, SOURCE, memory=1024) as opened:
        storm = Storm(opened, function("mixed", concurrent_num=4, timeout=1), seed)
        troubling = asyncio.ensure_future(storm.trouble())
        await asyncio.gather(*(storm.requests() for _ in range(AT_ONCE)))
        troubling.cancel()
        await asyncio.wait([troubling])
        await until(lambda: not opened.statistics().starting)  # other instances may have served what caused a start
        seen = opened.statistics()

        assert storm.codes.total() == REQUESTS
        assert set(storm.codes) <= ALLOWED
        assert (seen.busy, seen.starting, seen.memory, opened._running) == (0, 0, 128 * seen.idle, {})
