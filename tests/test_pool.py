"""Which instance serves, which one goes, and what becomes of a request whose instance ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.executors.pool import Pool
from engine.isolation.processes import marked
from engine.isolation.rlimits import RlimitIsolation
from engine.model import Code, Function, Outcome
from tests.executing import exit_of, function, invocation, is_alive, marker, pool

SOURCE = """
import os, sys, time


def tell(path):
    with open(path, "a") as file:
        file.write("%d\\n" % os.getpid())


def pid(event, context):
    return os.getpid()


def wait(event, context):
    if "say" in event:
        print(event["say"])
    tell(event["told"])
    with open(event["gate"]) as gate:  # opens when the test lets it
        gate.read()
    return os.getpid()


def say(event, context):
    print(event, end="")
    return "said"


def forge(event, context):
    frame = (11).to_bytes(4, "big") + bytes([2]) + (4208).to_bytes(2, "big") + bytes(8)
    for fd in range(3, 100):
        try:
            os.write(fd, frame)
        except OSError:
            pass
    time.sleep(20)


def size(event, context):
    return len(event)
"""


class Running:
    """A call of ``wait``: it tells when it runs, and ends when it may."""

    def __init__(self, opened: Pool, folder: Path, asked: Function | None = None, **event: str) -> None:
        name = os.urandom(4).hex()
        self.told, self.gate = folder / f"told-{name}", folder / f"gate-{name}"
        os.mkfifo(self.told)
        os.mkfifo(self.gate)
        self.invocation = invocation(json.dumps(event | {"told": str(self.told), "gate": str(self.gate)}))
        self.outcome: asyncio.Future[Outcome] = asyncio.ensure_future(
            opened.execute(asked or function("wait"), self.invocation)
        )

    async def pid(self) -> int:
        return int(await asyncio.to_thread(self.told.read_text))

    async def finish(self) -> Outcome:
        await asyncio.to_thread(self.gate.write_text, "")
        return await self.outcome


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, SOURCE) as opened:
        yield opened


async def pid_of(opened: Pool, **fields: Any) -> int:
    outcome = await opened.execute(function("pid", **fields), invocation())
    assert outcome.ok, outcome
    return int(outcome.result)


# --- which instance serves ---


async def test_a_warm_instance_serves_again(opened: Pool) -> None:
    assert await pid_of(opened) == await pid_of(opened)
    assert opened.statistics().started == 1


@pytest.mark.parametrize("other", [{"revision": 2}, {"function_id": 2}, {"memory_size": 256}, {"version": "v1"}])
async def test_an_instance_serves_one_revision_and_size_of_one_function(opened: Pool, other: dict[str, Any]) -> None:
    assert await pid_of(opened, revision=1) != await pid_of(opened, **({"revision": 1} | other))


async def test_the_memory_an_invocation_chose_counts(opened: Pool) -> None:
    await opened.execute(function("pid"), invocation(memory=512))

    assert opened.statistics().memory == 512


async def test_the_instance_used_last_is_used_first(opened: Pool, tmp_path: Path) -> None:
    first, second = Running(opened, tmp_path), Running(opened, tmp_path)
    pids = [await first.pid(), await second.pid()]
    await second.finish()
    await first.finish()
    third = Running(opened, tmp_path)

    assert await third.pid() == pids[0]
    assert (await third.finish()).ok


async def test_statistics_count_what_is_there(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path)
    await running.pid()
    await pid_of(opened)

    seen = opened.statistics()
    assert (seen.busy, seen.idle, seen.starting, seen.memory) == (1, 1, 0, 256)
    assert (seen.started, seen.retired, seen.killed, seen.cold_starts.count) == (2, 0, 0, 2)
    assert (await running.finish()).ok


# --- which one goes ---


async def test_an_idle_instance_ends_after_its_time(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, idle=0.05) as opened:
        await exit_of(await pid_of(opened))

        assert (opened.statistics().retired, opened.statistics().idle) == (1, 0)


async def test_memory_for_a_new_instance_is_taken_from_the_one_idle_longest(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, memory=256) as opened:
        oldest = await pid_of(opened, revision=1)
        newer = await pid_of(opened, revision=2)
        await pid_of(opened, revision=3)
        await exit_of(oldest)

        assert await pid_of(opened, revision=2) == newer
        assert opened.statistics().memory == 256


async def test_a_lack_of_memory_refuses_nothing(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, memory=64) as opened:
        assert await pid_of(opened) > 0


async def test_retiring_a_function_ends_its_idle_instances_but_those_of_the_kept_revision(opened: Pool) -> None:
    old, kept = await pid_of(opened, revision=1), await pid_of(opened, revision=2)
    other = await pid_of(opened, function_id=2, revision=1)

    await opened.retire(1, keep_revision=2)

    assert [is_alive(pid) for pid in (old, kept, other)] == [False, True, True]


async def test_a_busy_instance_that_was_retired_goes_when_it_is_done(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path)
    pid = await running.pid()
    await opened.retire(1)

    assert (await running.finish()).ok
    await exit_of(pid)


async def test_a_closed_pool_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE) as opened:
        running = Running(opened, tmp_path)
        pids = [await running.pid(), await pid_of(opened)]
        running.outcome.cancel()

    assert [is_alive(pid) for pid in pids] == [False, False]
    assert list((tmp_path / "tmp").iterdir()) == []


# --- when an instance ends under a request ---


async def test_a_killed_instance_is_a_failure_and_not_used_again(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path, say="so far")
    pid = await running.pid()
    os.kill(pid, signal.SIGKILL)

    outcome = await running.outcome

    assert (outcome.code, outcome.log) == (Code.USER_EXCEPTION, b"so far\n")
    assert "killed by SIGKILL" in outcome.message
    assert await pid_of(opened) != pid


async def test_a_stopped_instance_ends_by_the_timeout(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path, function("wait", timeout=1))
    pid = await running.pid()
    os.kill(pid, signal.SIGSTOP)

    assert (await running.outcome).code == Code.TIMEOUT
    await exit_of(pid)


async def test_cancelling_ends_the_instance(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path)
    pid = await running.pid()

    assert opened.cancel(running.invocation.key)
    assert (await running.outcome).code == Code.CANCELLED
    await exit_of(pid)


async def test_an_instance_that_is_being_started_can_be_cancelled(opened: Pool) -> None:
    asked = invocation()
    starting = asyncio.ensure_future(opened.execute(function("pid"), asked))
    await asyncio.sleep(0)

    assert opened.statistics().starting == 1
    assert opened.cancel(asked.key)
    assert (await starting).code == Code.CANCELLED


async def test_a_cancelled_call_ends_its_instance(opened: Pool, tmp_path: Path) -> None:
    running = Running(opened, tmp_path)
    pid = await running.pid()
    running.outcome.cancel()

    await exit_of(pid)


async def test_a_call_can_be_cancelled_at_any_step_and_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with pool(tmp_path, SOURCE) as opened:
        for steps in range(40):
            call = asyncio.ensure_future(opened.execute(function("pid", revision=steps), invocation()))
            for _ in range(steps):
                await asyncio.sleep(0.001 if steps % 2 else 0)
            call.cancel()
            await asyncio.wait([call])

        assert opened.statistics().started > 35
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # an epoll of this loop


async def test_a_forged_answer_ends_the_instance(opened: Pool) -> None:
    outcome = await opened.execute(function("forge"), invocation())

    assert (outcome.code, "socket" in outcome.message) == (Code.USER_EXCEPTION, True)


async def test_a_request_that_a_dead_instance_did_not_read_runs_on_a_new_one(opened: Pool) -> None:
    warm = await pid_of(opened)
    os.kill(warm, signal.SIGSTOP)
    call = asyncio.ensure_future(opened.execute(function("pid"), invocation()))
    await asyncio.sleep(0)
    os.kill(warm, signal.SIGKILL)

    outcome = await call

    assert outcome.ok
    assert int(outcome.result) != warm


async def test_a_large_request_that_a_dead_instance_read_in_part_runs_on_a_new_one(opened: Pool) -> None:
    asked, large = function("size"), json.dumps("x" * (4 << 20))
    await opened.execute(asked, invocation('""'))
    (warm,) = _children(opened)
    os.kill(warm, signal.SIGSTOP)
    call = asyncio.ensure_future(opened.execute(asked, invocation(large)))
    await asyncio.sleep(0)
    os.kill(warm, signal.SIGKILL)

    assert (await call).result == str(4 << 20).encode()


async def test_an_instance_that_died_idle_and_unnoticed_is_replaced(opened: Pool) -> None:
    warm = await pid_of(opened)
    _kill_before_the_loop_can_see(warm)

    assert await pid_of(opened) != warm


async def test_a_request_that_was_read_is_never_run_again(opened: Pool, tmp_path: Path) -> None:
    warm = Running(opened, tmp_path)
    await warm.pid()
    await warm.finish()
    running = Running(opened, tmp_path)
    os.kill(await running.pid(), signal.SIGKILL)

    assert (await running.outcome).code == Code.USER_EXCEPTION
    assert opened.statistics().started == 1


def _children(opened: Pool) -> list[int]:
    return [instance.pid for instance in opened._alive]


def _kill_before_the_loop_can_see(pid: int) -> None:
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([fd], [], [])
    os.close(fd)


# --- when none can be started ---


async def test_an_interpreter_that_is_not_there_is_the_engines_fault(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, python="/no/such/python") as opened:
        outcome = await opened.execute(function("pid"), invocation())

    assert outcome.code == Code.ENGINE
    assert "set executor.python" in outcome.message
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_code_that_is_not_there_is_the_engines_fault(opened: Pool, tmp_path: Path) -> None:
    (tmp_path / "code").rename(tmp_path / "gone")

    outcome = await opened.execute(function("pid"), invocation())

    assert outcome.code == Code.ENGINE
    assert str(tmp_path / "code") in outcome.message


async def test_running_out_of_descriptors_is_overload_and_leaks_none(opened: Pool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    codes = set()
    for spare in range(8):  # each number of spare ones fails at another step
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + spare, hard))
        codes.add((await opened.execute(function("pid", revision=spare), invocation())).code)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await opened.close()

    assert codes <= {Code.OVERLOAD, Code.OK}
    assert Code.OVERLOAD in codes
    assert len(os.listdir("/proc/self/fd")) <= len(before)


# --- other loops and neighbours ---


def test_two_pools_live_in_one_process_each_with_a_loop_of_its_own(tmp_path: Path) -> None:
    results: list[bytes] = []

    async def serve(folder: Path) -> None:
        async with pool(folder, SOURCE, isolation=RlimitIsolation()) as opened:
            results.append((await opened.execute(function("say"), invocation('"x"'))).result)

    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    threads = [threading.Thread(target=asyncio.run, args=(serve(folder),)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [b"said", b"said"]


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is the loop in production there")
def test_the_pool_works_on_uvloop(tmp_path: Path) -> None:
    import uvloop

    async def serve() -> tuple[Outcome, Outcome]:
        async with pool(tmp_path, SOURCE) as opened:
            running = Running(opened, tmp_path)
            os.kill(await running.pid(), signal.SIGKILL)
            return await running.outcome, await opened.execute(function("say"), invocation('"x"'))

    killed, said = uvloop.run(serve())

    assert (killed.code, said.log) == (Code.USER_EXCEPTION, b"x")
