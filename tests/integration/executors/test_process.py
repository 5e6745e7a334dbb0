"""Outcome of a request whose instance exits, is killed or is cancelled."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.executors.allocator import Start, WaitingCalls
from engine.executors.call import End
from engine.executors.instance import Instance
from engine.executors.pool import Pool
from engine.isolation.limits import Limits
from engine.isolation.processes import marked
from engine.isolation.rlimits import RlimitEnclosure, RlimitIsolation
from engine.model import Code
from engine.runtimes.protocol import READY, Answer, Logged
from tests.support.executing import SOURCE as BASIC
from tests.support.executing import exit_of, function, invocation, launched, marker, output, pid_of, pool, stop
from tests.support.instances import begin

SOURCE = (
    BASIC
    + """


def counted(event, context):
    with open(os.path.join(os.path.dirname(__file__), "runs"), "a") as file:
        file.write("run\\n")
    return "done"
"""
)


async def test_a_killed_instance_is_a_failure_and_not_used_again(opened: Pool, tmp_path: Path) -> None:
    running, pid = await begin(opened, tmp_path, say="so far")
    os.kill(pid, signal.SIGKILL)

    outcome = await running.outcome

    assert (outcome.code, output(outcome)) == (Code.USER_EXCEPTION, "so far\n")
    assert "killed by SIGKILL" in outcome.message
    assert await pid_of(opened) != pid


async def test_a_stopped_instance_ends_by_the_timeout(opened: Pool, tmp_path: Path) -> None:
    await opened.warm(function("wait", revision=1))
    running, pid = await begin(opened, tmp_path, function("wait", timeout=2, revision=1))
    stop(pid)

    assert (await running.outcome).code == Code.TIMEOUT
    await exit_of(pid)


async def test_an_instance_that_is_being_started_can_be_cancelled(opened: Pool) -> None:
    asked = invocation()
    await opened.check_runtime("Python3.10")  # else the search for an interpreter would be cancelled
    starting = asyncio.ensure_future(opened.execute(function("pid"), asked))
    for _ in range(2):  # the request waits, then its start has begun
        await asyncio.sleep(0)

    assert opened.statistics().starting == 1
    assert opened.cancel(asked.key)
    assert (await starting).code == Code.CANCELLED


async def test_an_instance_cancelled_while_its_limits_are_made_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on, enclose = threading.Event(), threading.Event(), RlimitIsolation.enclose

    def wait(isolation: RlimitIsolation, instance_id: str, limits: Limits) -> RlimitEnclosure:
        entered.set()
        go_on.wait()
        return enclose(isolation, instance_id, limits)

    monkeypatch.setattr(RlimitIsolation, "enclose", wait)
    async with pool(tmp_path, SOURCE, isolation=RlimitIsolation()) as opened:
        asked = invocation()
        starting = asyncio.ensure_future(opened.execute(function("pid"), asked))
        await asyncio.to_thread(entered.wait)
        (instance,) = opened.allocator.alive
        opened.cancel(asked.key)
        await instance.closed.wait()
        go_on.set()

        assert (await starting).code == Code.CANCELLED


async def test_a_call_can_be_cancelled_at_any_step_and_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with pool(tmp_path, SOURCE) as opened:
        await opened.check_runtime("Python3.10")  # only starts of instances are to be cancelled
        for steps in range(40):
            call = asyncio.ensure_future(opened.execute(function("pid", revision=steps), invocation()))
            for _ in range(steps):
                await asyncio.sleep(0.001 if steps % 2 else 0)
            call.cancel()
            await asyncio.wait([call])

        assert opened.statistics().started > 35
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # the epoll descriptor of this loop


async def test_a_large_request_that_a_dead_instance_read_in_part_runs_on_a_new_one(opened: Pool) -> None:
    asked, large = function("size"), json.dumps("x" * (4 << 20))
    await opened.execute(asked, invocation('""'))
    (instance,) = opened.allocator.alive
    stop(instance.pid)
    call = asyncio.ensure_future(opened.execute(asked, invocation(large)))
    await asyncio.sleep(0)
    os.kill(instance.pid, signal.SIGKILL)

    assert (await call).result == str(4 << 20).encode()


async def test_an_instance_that_died_idle_and_unnoticed_is_replaced(opened: Pool) -> None:
    warm = await pid_of(opened)
    _kill_before_the_loop_can_see(warm)

    assert await pid_of(opened) != warm


async def test_an_answer_counts_even_if_the_death_after_it_is_seen_first(opened: Pool) -> None:
    warm = await pid_of(opened)
    (instance,) = opened.allocator.alive
    call = asyncio.ensure_future(opened.execute(function("pid"), invocation()))
    await asyncio.sleep(0)
    select.select(
        [launched(opened).channel._fd], [], []
    )  # the answer is there, but the blocked loop cannot read it yet
    _kill_before_the_loop_can_see(warm)

    instance.exited()

    assert (await call).result == str(warm).encode()


def _kill_before_the_loop_can_see(pid: int) -> None:
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([fd], [], [])
    os.close(fd)


# --- between the READY frame of an instance and its first request ---


def when_ready(patch: pytest.MonkeyPatch, act: Callable[[Instance], object]) -> None:
    """Call ``act`` once, right after the first READY frame is read and before its waiters resume."""
    take, left = Instance._receive, [act]

    def taking(instance: Instance, frame: Answer | Logged) -> None:
        take(instance, frame)
        if isinstance(frame, Answer) and frame.kind == READY and left:
            left.pop()(instance)

    patch.setattr(Instance, "_receive", taking)


def runs(tmp_path: Path) -> int:
    file = tmp_path / "code" / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_a_request_that_started_the_instance_can_still_be_cancelled(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    asked = invocation()
    when_ready(monkeypatch, lambda instance: told.append(opened.cancel(asked.key)))
    outcome = await opened.execute(function("counted"), asked)

    assert (told, outcome.code, runs(tmp_path)) == ([True], Code.CANCELLED, 0)


async def test_a_request_that_waited_for_the_instance_can_still_be_cancelled(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    leader, follower = invocation(), invocation()
    serve = WaitingCalls.serve

    def serving(waiting: WaitingCalls, instance: Instance, start: Start | None = None) -> None:
        serve(waiting, instance, start)
        told.append(opened.cancel(follower.key))

    monkeypatch.setattr(WaitingCalls, "serve", serving)
    shared = function("counted", concurrent_num=2)
    outcomes = await asyncio.gather(*(opened.execute(shared, request) for request in (leader, follower)))

    assert ([outcome.code for outcome in outcomes], told) == ([Code.OK, Code.CANCELLED], [True])
    assert runs(tmp_path) == 1


async def test_an_instance_that_ends_then_has_run_nothing_and_another_is_started(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_ready(monkeypatch, lambda instance: instance.kill(End.EXITED))
    outcome = await opened.execute(function("counted"), invocation())

    assert (outcome.code, outcome.result, runs(tmp_path)) == (Code.OK, b"done", 1)
    assert opened.statistics().started == 2
