"""Attempts whose node is lost, or whose instance on a node is killed. Instances are simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.executors.call import Call, End, State, key_of
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.executors.process import Exit
from engine.model import Code, Invocation, Mode
from engine.runtimes.protocol import DONE, Answer
from tests.support.executing import function, invocation
from tests.support.waiting import until
from tests.unit.executors.test_allocator import Bare, Crowd
from tests.unit.executors.test_instance import Ready, Running, instance_of, pool_of

LOST = "node n1 was lost (silent) before the invocation ended"


class Remote(Bare):
    """Instance on a node, whose end ``finish`` decides. The node announces its exit later."""

    async def invoke(self, call: Call, invocation: Invocation, *limits: float) -> Answer | None:
        call.begin(self, 1)
        call.send(asyncio.get_running_loop().create_future())
        self.call = call
        answer: Answer | None = await call.future
        return answer

    def finish(self, end: End, state: State = State.RESPONSIBLE) -> None:
        self.end, self.lost = end, "silent" if end is End.NODE_LOST else ""
        self._owner.instance_ended(self)
        self.call.lose(state)

    def close(self) -> None:
        self.closed.set()
        self._owner.instance_closed(self)

    def interrupt(self, end: End, call: Call) -> None:
        self.finish(end)


class Nodes(Ready):
    """Launcher of instances on the node ``n1``."""

    def __init__(self) -> None:
        super().__init__(0)
        self.remote: list[Remote] = []

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        instance = Remote(owner, plan)
        instance.node, instance.unread, instance.last_invoked = "n1", False, 1
        self.remote.append(instance)
        return instance


async def serving(launcher: Nodes, count: int = 1) -> None:
    """Wait until the last of ``count`` instances serves a request."""
    await until(lambda: len(launcher.remote) == count and hasattr(launcher.remote[-1], "call"))


@pytest.mark.parametrize("state", [State.RESPONSIBLE, State.COLLATERAL])
async def test_each_loss_of_a_node_is_told_and_counted(state: State, tmp_path: Path) -> None:
    launcher, asked = Nodes(), invocation()
    pool = pool_of(launcher, tmp_path)
    for losses in (1, 2, 3, 4):
        run = asyncio.ensure_future(pool.execute(function("any"), asked))
        await serving(launcher, losses)
        launcher.remote[-1].finish(End.NODE_LOST, state)
        launcher.remote[-1].close()
        outcome = await run

        assert (outcome.code, outcome.message, outcome.losses) == (Code.ENGINE, LOST, losses)


async def started(launcher: Nodes, execute: Callable[..., Awaitable[object]], mode: Mode) -> asyncio.Future[object]:
    run = asyncio.ensure_future(execute(function("any"), invocation(mode=mode)))
    await serving(launcher)
    return run


@pytest.mark.parametrize("end", [End.TIMEOUT, End.EXITED])
async def test_an_attempt_on_a_node_ends_when_nothing_of_it_runs_any_more(end: End, tmp_path: Path) -> None:
    launcher = Nodes()
    run = await started(launcher, pool_of(launcher, tmp_path).execute, Mode.ASYNC)
    launcher.remote[0].finish(end)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not run.done()

    launcher.remote[0].close()
    await run


async def test_a_synchronous_call_does_not_wait_for_the_end_of_its_instance(tmp_path: Path) -> None:
    launcher = Nodes()
    run = await started(launcher, pool_of(launcher, tmp_path).execute, Mode.SYNC)
    launcher.remote[0].finish(End.TIMEOUT)

    await run


@pytest.mark.parametrize("before", [True, False], ids=["while it runs", "while its end is confirmed"])
async def test_a_cancelled_attempt_on_a_node_ends_at_once(before: bool, tmp_path: Path) -> None:
    launcher = Nodes()
    pool = pool_of(launcher, tmp_path)
    asked = invocation()
    run = asyncio.ensure_future(pool.execute(function("any"), asked))
    await serving(launcher)
    if not before:
        launcher.remote[0].finish(End.EXITED)
        for _ in range(20):
            await asyncio.sleep(0)

    assert pool.cancel(asked.key)
    assert (await run).code == Code.CANCELLED
    assert not launcher.remote[0].closed.is_set()


async def test_a_start_whose_node_is_lost_is_a_loss(tmp_path: Path) -> None:
    class Losing(Nodes):
        async def load(self, instance: Instance, start: Call) -> Answer:
            instance.lost = "silent"
            instance.kill(End.NODE_LOST)
            return Answer(DONE, Code.OK, 0, "", b"")

    outcome = await pool_of(Losing(), tmp_path).execute(function("any"), invocation())

    assert (outcome.code, outcome.message, outcome.losses) == (Code.ENGINE, LOST, 1)


async def test_a_busy_instance_on_a_silent_node_gets_no_further_calls_and_is_dismissed() -> None:
    crowd = Crowd(concurrency=2)
    await crowd.do("come", "load")
    crowd.allocator.instance_suspect(crowd.launcher.instances[0])
    await crowd.do("come")
    assert len(crowd.launcher.instances) == 2

    await crowd.do("go")
    assert crowd.launcher.instances[0].end is End.RETIRED
    await crowd.allocator.close()


async def test_the_exit_tells_that_the_node_was_lost(tmp_path: Path) -> None:
    class Lost(Running):
        alive = connected = False

        def reap(self) -> Exit:
            return Exit(None, lost="silent")

    instance = instance_of(tmp_path, Lost(), function("any"))
    instance.exited()

    assert (instance.end, instance.lost, instance.closed.is_set()) == (End.NODE_LOST, "silent", True)


async def test_a_request_to_a_connection_that_closes_is_unread_and_loses_the_node(tmp_path: Path) -> None:
    class Closing(Running):
        open = True

        def write(self, frame: bytes) -> bool:
            return self.open

    asked, process = function("any", concurrent_num=2), Closing()
    instance = instance_of(tmp_path, process, asked)
    instance.node = "n1"
    instance.connect(process)
    first, second = [Call(key_of(asked), asked, invocation()) for _ in range(2)]
    serving = asyncio.ensure_future(instance.invoke(first, invocation(), 60.0))
    await asyncio.sleep(0)
    process.open = False
    assert await instance.invoke(second, invocation(), 60.0) is None
    assert await serving is None

    assert (instance.end, first.state, instance.left_unread(second)) == (End.NODE_LOST, State.COLLATERAL, True)
    assert instance.lost == "its connection closed"
