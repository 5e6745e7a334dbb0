"""Instances forked by a template: same behaviour as spawned ones, faster start."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import resource
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.local.spawners import HostSpawner
from engine.executors.local.template import Template
from engine.executors.pool import Pool
from engine.isolation.processes import marked
from engine.model import Code
from engine.runtimes.interpreters import Interpreters, own_interpreter
from tests.integration.executors.test_isolation import SOURCE as ISOLATED
from tests.support.executing import SOURCE as BASIC
from tests.support.executing import (
    exit_of,
    function,
    invocation,
    is_alive,
    launched,
    local_spawner,
    marker,
    pid_of,
    pool,
    stop,
)
from tests.support.instances import begin, result
from tests.support.triggering import until

SOURCE = (
    BASIC
    + ISOLATED
    + '''
import base64, json, multiprocessing, random, resource, signal


def look(event, context):
    """What a process is given."""
    told = ("SigBlk", "SigIgn", "SigCgt", "Umask", "Uid")
    status = [line for line in open("/proc/self/status") if line.startswith(told)]
    return {
        "environment": dict(os.environ), "folder": os.getcwd(), "files": descriptors(event, context), "status": status,
        "limits": [resource.getrlimit(kind) for kind in range(10)],
        "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "argv": sys.argv, "path": sys.path, "executable": sys.executable, "zone": time.tzname, "main": main_file(),
        "marks": sorted(part for part in open("/proc/self/environ").read().split(chr(0)) if "FUNCTIOND" in part),
        "threads": len(os.listdir("/proc/self/task")), "preloaded": base64.__file__,
    }


def main_file():
    return sys.modules["__main__"].__file__


def draw(event, context):
    return [random.random(), random.SystemRandom().random(), os.urandom(4).hex()]


def square(number):
    return number * number


def squares(event, context):
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        return workers.map(square, [1, 2, 3])


def stray(event, context):
    if os.fork() == 0:
        os.close(1), os.close(2)
        time.sleep(600)
        os._exit(0)
    os._exit(3)


def ended(event, context):
    if event["with"]:
        subprocess.Popen(["setsid", "sleep", "600"])
    if event["do"] == "leave":
        os._exit(3)
    if event["do"] == "hang":
        time.sleep(600)
    return event["do"]
'''
)
FORKING = IsolationOptions(isolation="process", fork_server="start")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Pool]:
    async with pool(tmp_path, SOURCE, sandbox=FORKING, interpreters=own()) as opened:
        await ready(opened)
        yield opened


def own() -> Interpreters:
    return Interpreters(python=own_interpreter().path)


def template_of(opened: Pool) -> Template:
    spawner = local_spawner(opened)
    assert isinstance(spawner, HostSpawner)
    template = spawner._templates[own_interpreter().path]
    assert template is not None
    return template


async def ready(opened: Pool) -> None:
    """Wait until the template can fork; later starts are forked."""
    await template_of(opened).ready.wait()


def reap_later(opened: Pool) -> Callable[[], object]:
    """Disable reaping for the only instance; return the function that reaps it."""
    child = launched(opened).child
    reap = child.reap
    child.reap = lambda: None  # type: ignore[method-assign]
    return reap


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


async def look(opened: Pool, **fields: Any) -> dict[str, Any]:
    seen: dict[str, Any] = await result(opened, "look", **fields)
    return seen


async def test_a_forked_instance_finds_what_a_program_of_its_own_would(opened: Pool, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    async with pool(folder, SOURCE, marker="plain-" + marker(tmp_path), interpreters=own()) as plain:
        forked, other = await look(opened), await look(plain)

    mine, others = (seen["environment"]["FUNCTIOND_INSTANCE"] for seen in (forked, other))
    told = json.dumps(other).replace(others, mine).replace(others[:12], mine[:12])
    assert forked == json.loads(told.replace("plain-", "").replace("/plain", ""))
    assert forked["leads"]


async def test_a_forked_instance_can_start_workers_of_its_own(opened: Pool) -> None:
    assert await result(opened, "squares", timeout=60) == [1, 4, 9]


async def test_a_time_zone_of_the_function_counts(opened: Pool) -> None:
    assert (await look(opened, user_data={"TZ": "Asia/Shanghai"}))["zone"] == ["CST", "CST"]


async def test_what_only_a_new_program_can_take_up_makes_a_new_program(opened: Pool) -> None:
    assert parent(await pid_of(opened, user_data={"MALLOC_ARENA_MAX": "2"})) == os.getpid()


async def test_two_instances_draw_different_numbers(opened: Pool) -> None:
    one, other = [await result(opened, "draw", revision=number) for number in (1, 2)]

    assert not set(one) & set(other)


async def test_files_named_like_modules_that_the_template_has_loaded_win(opened: Pool, tmp_path: Path) -> None:
    for name in ("base64", "selectors", "socket"):
        (tmp_path / "code" / f"{name}.py").write_text("")
    (tmp_path / "code" / "found.py").write_text(
        "import base64, selectors, socket\n"
        "def handler(event, context): return [one.__file__ for one in (base64, selectors, socket)]"
    )

    assert {Path(file).parent for file in await result(opened, "found.handler")} == {tmp_path / "code"}


async def test_what_a_dead_instance_had_forked_is_swept_up(opened: Pool, tmp_path: Path) -> None:
    template = template_of(opened)
    outcome = await opened.execute(function("stray"), invocation())

    assert "status 3" in outcome.message
    for pid in [pid for pid in marked("FUNCTIOND_ENGINE", marker(tmp_path)) if pid != template.pid]:
        await exit_of(pid)


async def test_when_the_template_dies_running_calls_finish_or_are_cancelled_and_a_new_one_comes(
    opened: Pool, tmp_path: Path
) -> None:
    running, pid = await begin(opened, tmp_path)
    unwanted, other = await begin(opened, tmp_path)
    dead = template_of(opened)
    os.kill(dead.pid, signal.SIGKILL)
    await dead.closed.wait()

    assert opened.cancel(unwanted.invocation.key)
    assert (await unwanted.outcome).code == Code.CANCELLED
    await exit_of(other)
    assert (await running.finish()).result == str(pid).encode()
    assert await pid_of(opened, revision=1) > 0  # starts the next template
    await ready(opened)
    assert parent(await pid_of(opened, revision=2)) == template_of(opened).pid


async def test_a_template_that_is_stopped_holds_no_dead_instance(
    opened: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.local.template._STATUS_TIMEOUT", 0.05)
    running, pid = await begin(opened, tmp_path)
    stop(template_of(opened).pid)
    os.kill(pid, signal.SIGKILL)

    assert (await running.outcome).message.endswith("the process of the instance ended")
    os.kill(template_of(opened).pid, signal.SIGCONT)
    assert parent(await pid_of(opened)) == template_of(opened).pid


async def test_a_template_that_is_stopped_delays_one_start_and_is_given_up(opened: Pool, tmp_path: Path) -> None:
    running, pid = await begin(opened, tmp_path)
    stopped = template_of(opened)
    stopped._max_wait = 0.1
    os.kill(stopped.pid, signal.SIGSTOP)
    late = await opened.execute(function("pid"), invocation())
    await pid_of(opened)  # starts the next template
    await ready(opened)

    assert late.engine_fault
    assert late.message.endswith("has been silent for 0.1 s and is given up; it will be tried again")
    assert parent(await pid_of(opened, revision=1)) == template_of(opened).pid != stopped.pid
    assert (await running.finish()).result == str(pid).encode()
    await opened.retire(1)
    await stopped.closed.wait()


async def test_a_process_id_stays_taken_until_its_death_is_settled_which_is_not_taken_for_that_of_another(
    opened: Pool, tmp_path: Path
) -> None:
    running, pid = await begin(opened, tmp_path)
    reaped = reap_later(opened)
    os.kill(pid, signal.SIGKILL)
    await running.outcome
    assert state(pid) == "Z"
    other = await pid_of(opened)  # the second instance has reused the first one's descriptor numbers
    reaped()

    await exit_of(pid)
    assert await pid_of(opened, revision=1) > 0
    assert is_alive(other)


async def test_with_the_engine_everything_forked_is_gone(opened: Pool, tmp_path: Path) -> None:
    running, pid = await begin(opened, tmp_path)
    template_of(opened).close()  # same effect on the template as a killed engine

    await exit_of(pid)
    assert not is_alive(pid)
    await running.outcome


async def test_a_fork_that_fails_costs_no_other_instance(opened: Pool, tmp_path: Path) -> None:
    running, pid = await begin(opened, tmp_path)
    template = template_of(opened)
    await until(lambda: state(template.pid) == "S")  # sleeping: the template has loaded everything
    used = {int(fd) for fd in os.listdir(f"/proc/{template.pid}/fd")}
    free = [fd for fd in range(1000) if fd not in used]
    _, most = resource.prlimit(template.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(
        template.pid, resource.RLIMIT_NOFILE, (free[3], most)
    )  # enough for the descriptors that are sent, but not for the fork
    refused = await opened.execute(function("pid"), invocation())
    resource.prlimit(template.pid, resource.RLIMIT_NOFILE, (most, most))

    assert refused.code == Code.OVERLOAD
    assert parent(await pid_of(opened, revision=1)) == template.pid
    assert (await running.finish()).result == str(pid).encode()


async def test_what_keeps_a_forked_process_from_its_work_is_the_engines_fault(opened: Pool, tmp_path: Path) -> None:
    (tmp_path / "code").rename(tmp_path / "gone")
    outcome = await opened.execute(function("pid", initializer_handler="index.pid"), invocation())

    assert (outcome.code, str(tmp_path / "code") in outcome.message) == (Code.ENGINE, True)
    assert opened.statistics().started == 1


@pytest.mark.parametrize("sandbox", [NO_ISOLATION, FORKING], ids=["spawned", "forked"])
async def test_running_out_of_descriptors_is_overload_and_leaves_nothing(
    tmp_path: Path, sandbox: IsolationOptions
) -> None:
    async with pool(tmp_path, SOURCE, sandbox=sandbox, interpreters=own()) as opened:
        if sandbox is FORKING:
            await ready(opened)
        await pid_of(opened)
        await opened.retire(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = os.listdir("/proc/self/fd")
        codes = set()
        for spare in range(14):  # each number of spare descriptors fails at another step
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + spare, hard))
            codes.add((await opened.execute(function("pid", revision=spare), invocation())).code)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert codes <= {Code.OVERLOAD, Code.OK}
    assert Code.OVERLOAD in codes
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_process_whose_descriptor_does_not_come_through_leaves_no_zombie(
    opened: Pool, tmp_path: Path, dead: bool
) -> None:
    template, loop = template_of(opened), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request: dict[str, Any] = {"argv": None, "paths": [str(tmp_path)], "environment": {}}
        request |= {"fence": None, "filter": None}
        child = template.fork(request, [theirs.fileno()] * 3)
    if dead:  # the child has exited before its fork is reported
        loop.remove_reader(template._socket)
        await until(lambda: packets(template) > 1)
        loop.add_reader(template._socket, template._read)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), hard))
    with pytest.raises(OSError, match="Too many open files"):
        await child.spawned()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    child.reap()

    async with asyncio.timeout(60):
        await until(lambda: not children(template.pid))


def packets(template: Template) -> int:
    """Count the template's unread packets; 2 stands for two or more."""
    size = bytearray(4)
    fcntl.ioctl(template._socket, termios.FIONREAD, size)
    if not any(size):
        return 0
    return 1 + (int.from_bytes(size, sys.byteorder) > len(template._socket.recv(1 << 16, socket.MSG_PEEK)))


def lowest_free() -> int:
    """Return the lowest free descriptor."""
    fd = os.dup(0)
    os.close(fd)
    return fd


async def test_a_template_that_ends_says_why_also_when_it_has_hung_up_before() -> None:
    dying = "import os, sys, time; os.close(int(sys.argv[1])); time.sleep(0.2); sys.exit('no room for it')"
    template = Template([own_interpreter().path, "-c", dying, "{fd}"], {})
    child = template.fork({}, [])

    with pytest.raises(OSError, match="no room for it"):
        await child.spawned()
    await template.closed.wait()
    child.reap()


async def test_many_requests_wait_for_a_template_that_starts() -> None:
    template = Template([own_interpreter().path, "-c", "import time; time.sleep(1000)", "{fd}"], {})
    children = [template.fork({"environment": "x" * 3000}, []) for _ in range(60)]

    template.kill()
    await template.closed.wait()
    assert not any(child.exists for child in children)
    for child in children:
        child.reap()


# --- many exits at a time, of every kind ---

ENDS = {"answer": Code.OK, "leave": Code.USER_EXCEPTION, "hang": Code.TIMEOUT, "cancel": Code.CANCELLED}


async def end(opened: Pool, way: str, helped: bool, max_wait: float) -> int | None:
    """Run a call that ends as ``way`` names; return its code, or None for an abandoned call."""
    given_up = way in ("cancel", "abandon")
    limit = 1 if way == "hang" else 60
    call = invocation(json.dumps({"do": "hang" if given_up else way, "with": helped}))
    running = asyncio.ensure_future(opened.execute(function("ended", timeout=limit), call))
    if given_up:
        await asyncio.wait([running], timeout=max_wait)
    if way == "cancel":
        opened.cancel(call.key)
    if way == "abandon":
        running.cancel()
        await asyncio.wait([running])
        return None
    return (await running).code


@pytest.mark.long
async def test_each_instance_ends_in_its_own_way_and_nothing_is_left(tmp_path: Path) -> None:
    draw = random.Random(7)
    slots = asyncio.Semaphore(10)
    before = len(os.listdir("/proc/self/fd"))

    async def one() -> tuple[str, int | None]:
        way = draw.choice([*ENDS, "abandon"])
        async with slots:
            return way, await end(forking, way, draw.random() < 0.3, draw.random() / 20)

    async with pool(tmp_path, SOURCE, sandbox=FORKING, interpreters=own()) as forking:
        await ready(forking)
        template = template_of(forking)
        ended = await asyncio.gather(*(one() for _ in range(150)))
        last = template_of(forking)

    assert last is template  # an exit of the template would have killed its instances
    assert [(way, code) for way, code in ended if code != ENDS.get(way)] == []
    assert list(marked("FUNCTIOND_ENGINE", marker(tmp_path))) == []
    assert os.listdir(tmp_path / "tmp") == []
    assert len(os.listdir("/proc/self/fd")) <= before  # descriptors of earlier tests may be closed meanwhile
