"""Contract of launchers, of the channels and of the processes of their instances."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.errors import InvalidField
from engine.executors.call import Call, End, State, key_of
from engine.executors.instance import Instance
from engine.executors.launcher import Launcher
from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.logs.lines import plain
from engine.model import Code, CodePackage
from engine.runtimes.protocol import ITSELF, Answer
from tests.support.executing import CODE, exit_of, function, invocation, is_alive, pool, stop
from tests.support.nodes import agent, node_pool, processes_of
from tests.support.programs import program
from tests.support.waiting import until

SOURCE = """
import os, time


def echo(event, context):
    return event


def raw(event, context):
    os.write(1, b"to stdout\\n")
    os.write(2, b"to stderr, unfinished")
    return "done"


def hang(event, context):
    time.sleep(600)


def leave(event, context):
    os._exit(7)


def never(context):
    raise RuntimeError("never")


def leaving(context):
    os._exit(5)


def endless(context):
    time.sleep(600)
"""

#: Options of each launcher, on this machine and on a node.
KINDS: dict[str, Any] = {
    "spawned": NO_ISOLATION,
    "forked": IsolationOptions(isolation="process", fork_server="start"),
    "sandboxed": IsolationOptions(isolation="bubblewrap"),
}
NODE = ", on a node"


class Owner:
    """Owner of instances that records their ends in order, and clears them when they are closed."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.seen: list[tuple[str, Instance]] = []

    def instance_suspect(self, instance: Instance) -> None:
        self.seen.append(("suspect", instance))

    def instance_ended(self, instance: Instance) -> None:
        self.seen.append(("ended", instance))

    def instance_closed(self, instance: Instance) -> None:
        self.seen.append(("closed", instance))
        self.launcher.clear(instance)


class Launching:
    """Launcher and the owner of its instances."""

    def __init__(self, launcher: Launcher, tmp: Path, code: CodePackage) -> None:
        self.launcher, self.owner, self.tmp, self.code = launcher, Owner(launcher), tmp, code

    async def launch(self, handler: str, **fields: Any) -> tuple[Instance, Call]:
        """Return an instance that has loaded nothing, and the call for its start."""
        asked = function(handler, code=self.code, **fields)
        plan = await self.launcher.prepare(key_of(asked), asked, lambda: None)
        instance = self.launcher.launch(plan, self.owner)
        start = Call(key_of(asked), asked, None)
        start.begin(instance, ITSELF)
        return instance, start

    async def load(self, handler: str, **fields: Any) -> tuple[Instance, Answer | None]:
        instance, start = await self.launch(handler, **fields)
        answer = await self.launcher.load(instance, start)
        instance.ready = answer is not None and answer.code == Code.OK
        return instance, answer

    async def ready(self, handler: str, **fields: Any) -> Instance:
        instance, answer = await self.load(handler, **fields)
        assert instance.ready, answer
        return instance


async def ask(instance: Instance, event: str = "{}", seconds: float = 30) -> tuple[Answer | None, Call]:
    asked = invocation(event)
    call = Call(instance.key, instance._function, asked)
    return await instance.invoke(call, asked, seconds), call


@pytest.fixture(params=[*KINDS, *(kind + NODE for kind in KINDS if kind != "spawned")])
async def launching(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Launching]:
    kind = request.param.removesuffix(NODE)
    if kind == "sandboxed":
        program("bwrap")
    async with AsyncExitStack() as stack:
        if kind == request.param:
            opened = await stack.enter_async_context(pool(tmp_path, SOURCE, sandbox=KINDS[kind]))
            scene = Launching(opened._launcher, tmp_path / "tmp", CODE)
        else:
            nodes = await stack.enter_async_context(node_pool(tmp_path, "n1", sandbox=KINDS[kind]))
            await stack.enter_async_context(agent(nodes, "n1"))
            code = await nodes.package({"index.py": SOURCE})
            scene = Launching(nodes.launcher, tmp_path / "agent-n1" / "tmp", code)
        yield scene
        for _, instance in scene.owner.seen:
            instance.kill(End.ABANDONED)
        for _, instance in list(scene.owner.seen):
            await instance.closed.wait()


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def processes(instance: Instance) -> list[int]:
    return [instance.pid, *descendants(instance.pid)] if instance.pid else processes_of(instance.id)


async def end(launching: Launching, instance: Instance) -> list[str]:
    """Kill an instance, wait until it is closed, and return what its owner was told."""
    instance.kill(End.RETIRED)
    await instance.closed.wait()
    return [what for what, other in launching.owner.seen if other is instance]


async def test_an_instance_answers_the_requests_that_it_gets(launching: Launching) -> None:
    instance = await launching.ready("echo")

    answers = [(await ask(instance, event))[0] for event in ("1", '{"a": 2}')]

    assert [(answer.code, answer.result) for answer in answers if answer] == [(0, b"1"), (0, b'{"a": 2}')]
    assert await end(launching, instance) == ["ended", "closed"]


async def test_requests_and_results_of_6_mib_pass(launching: Launching) -> None:
    instance, event = await launching.ready("echo"), '"' + "x" * ((6 << 20) - 2) + '"'

    answer, _ = await ask(instance, event)

    assert answer is not None
    assert len(answer.result) == (6 << 20) - 2
    await end(launching, instance)


async def test_raw_output_written_before_the_answer_is_in_the_log_of_the_request(launching: Launching) -> None:
    instance = await launching.ready("raw")

    answer, call = await ask(instance)

    assert answer is not None
    assert sorted(plain(call.written().kept).splitlines()) == [b"to stderr, unfinished", b"to stdout"]
    await end(launching, instance)


@pytest.mark.parametrize(
    ("handler", "initializer", "code"),
    [("missing", "", Code.ENTRY_NOT_FOUND), ("echo", "index.never", Code.INITIALIZER_ERROR)],
    ids=["code without its handler", "an initializer that raises"],
)
async def test_code_that_cannot_be_loaded_is_an_answer(
    launching: Launching, handler: str, initializer: str, code: Code
) -> None:
    instance, answer = await launching.load(handler, initializer_handler=initializer)

    assert answer is not None
    assert answer.code == code
    await end(launching, instance)


async def test_an_instance_that_exits_while_it_loads_gives_no_answer(launching: Launching) -> None:
    instance, answer = await launching.load("echo", initializer_handler="index.leaving")

    assert (answer, instance.end, instance.exit_status) == (None, End.EXITED, 5)
    assert await end(launching, instance) == ["ended", "closed"]


async def test_an_initializer_that_takes_too_long_is_ended(launching: Launching) -> None:
    instance, answer = await launching.load("echo", initializer_handler="index.endless", initializer_timeout=1)

    assert (answer, instance.end) == (None, End.TIMEOUT)
    await end(launching, instance)


async def test_a_killed_process_ends_its_request_and_reports_its_status(launching: Launching) -> None:
    instance = await launching.ready("hang")
    asking = asyncio.ensure_future(ask(instance))
    await asyncio.sleep(0.1)  # a request that was not read yet would end in the same way
    for pid in processes(instance)[:1]:
        os.kill(pid, signal.SIGKILL)

    answer, call = await asking

    assert (answer, instance.end, call.state) == (None, End.EXITED, State.RESPONSIBLE)
    await instance.closed.wait()
    assert instance.exit_status == -signal.SIGKILL


async def test_a_process_that_exits_in_a_request_reports_its_status(launching: Launching) -> None:
    instance = await launching.ready("leave")

    answer, call = await ask(instance)

    await instance.closed.wait()
    assert (answer, instance.end, instance.exit_status, instance.left_unread(call)) == (None, End.EXITED, 7, False)


async def test_a_request_that_was_not_read_is_known_to_be_unread(launching: Launching) -> None:
    instance = await launching.ready("echo")
    pids = processes(instance)
    for pid in pids:
        stop(pid)
    asking = asyncio.ensure_future(ask(instance))
    await asyncio.sleep(0)
    os.kill(pids[0], signal.SIGKILL)

    answer, call = await asking
    await instance.closed.wait()

    assert (answer, instance.left_unread(call)) == (None, True)


async def test_a_killed_instance_leaves_no_process_and_no_file(launching: Launching) -> None:
    launching.tmp.mkdir(exist_ok=True)
    before = set(launching.tmp.iterdir())
    instance = await launching.ready("echo")
    pids = processes(instance)
    assert all(is_alive(pid) for pid in pids)

    assert await end(launching, instance) == ["ended", "closed"]
    for pid in pids:
        await exit_of(pid)
    await launching.launcher.close()

    await until(lambda: set(launching.tmp.iterdir()) <= before)  # an agent removes them after it has told the exit


async def test_an_instance_killed_before_it_loads_is_closed(launching: Launching) -> None:
    instance, start = await launching.launch("echo")
    loading = asyncio.ensure_future(launching.launcher.load(instance, start))
    await asyncio.sleep(0)

    assert await end(launching, instance) == ["ended", "closed"]
    assert await loading is None


async def test_a_cancelled_load_leaves_an_instance_that_can_be_killed(launching: Launching) -> None:
    instance, start = await launching.launch("echo", initializer_handler="index.endless")
    loading = asyncio.ensure_future(launching.launcher.load(instance, start))
    await asyncio.sleep(0.05)
    loading.cancel()
    await asyncio.wait([loading])

    assert await end(launching, instance) == ["ended", "closed"]


async def test_a_runtime_that_cannot_run_is_refused_before_anything_starts(launching: Launching) -> None:
    asked = function("echo", runtime="Cobol85")

    with pytest.raises(InvalidField):
        await launching.launcher.prepare(key_of(asked), asked, lambda: None)
    with pytest.raises(InvalidField):
        await launching.launcher.check_runtime("Cobol85")
    with pytest.raises(InvalidField):
        await launching.launcher.interpreters("Cobol85")
    assert launching.owner.seen == []


async def test_the_interpreter_of_a_runtime_is_one_of_all(launching: Launching) -> None:
    everything = await launching.launcher.interpreters("")
    named = await launching.launcher.interpreters(everything[0].runtime)

    assert named == everything[:1]
    bootstraps = await launching.launcher.interpreters("Custom")
    assert replace(bootstraps[0], runtime="") in [replace(interpreter, runtime="") for interpreter in everything]


async def test_a_launcher_tells_its_walls(launching: Launching) -> None:
    assert launching.launcher.walls["isolation"]
    assert launching.launcher.walls["http_network"] in ("own", "mapped", "unavailable")
