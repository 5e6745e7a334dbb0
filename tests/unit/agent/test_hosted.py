"""Instances on a node: a preparation or start that fails unexpectedly, and frames for one that has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine.agent.hosted import Hosted, Node
from engine.agent.relay import Outlet, Relay
from engine.executors.call import Call, End, key_of
from engine.executors.instance import InstanceOwner
from engine.executors.launcher import LaunchPlan
from engine.executors.nodes.connection import CONTROL, Connection
from engine.executors.nodes.messages import FromAgent, Gone, Prepare, Prepared, Start, from_agent
from engine.executors.nodes.streams import Streams
from tests.support.agents import AgentEnd, EngineEnd
from tests.support.executing import function
from tests.support.waiting import until
from tests.unit.executors.test_instance import Running, recorder_of


class Sent(Connection):
    """Connection that keeps the messages of the agent."""

    messages: list[FromAgent]

    def send(self, kind: int, channel: int, data: bytes) -> None:
        if kind == CONTROL:
            self.messages.append(from_agent(data))


class Process(Running):
    """Process that exits when it is killed."""

    connected = False

    def __init__(self) -> None:
        self.relay: Relay

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            asyncio.get_running_loop().call_soon(lambda: self.relay.exited())


class Failing:
    """Launcher that has a bug in one of its steps."""

    def __init__(self, step: str, folder: Path, outlet: Outlet) -> None:
        self._step, self._folder, self._outlet = step, folder, outlet

    def _fail(self, step: str) -> None:
        if step == self._step:
            raise RuntimeError("a bug")

    async def prepare(self, key: Any, asked: Any, on_wait: Any) -> LaunchPlan:
        self._fail("prepare")
        return LaunchPlan(key, asked, ["python"], "i")

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Relay:
        self._fail("launch")
        process = Process()
        process.relay = Relay(
            self._outlet,
            process,
            key=plan.key,
            function=plan.function,
            owner=owner,
            recorder=recorder_of(self._folder),
            on_work=lambda instance: None,
        )
        return process.relay

    async def load(self, relay: Relay, call: Call) -> None:
        self._fail("load")

    def clear(self, relay: Relay) -> None: ...


class Present:
    """Packages that are here."""

    def use(self, asked: Any) -> None: ...

    release = use

    async def fetch(self, asked: Any) -> None: ...


@pytest.mark.parametrize("step", ["prepare", "launch", "load"])
async def test_a_bug_ends_one_instance_and_no_other(step: str, tmp_path: Path) -> None:
    connection = Sent(AgentEnd(EngineEnd(tmp_path, {})))
    messages = connection.messages = list[FromAgent]()
    outlet = Outlet(connection)
    node = Node(connection, Failing(step, tmp_path, outlet), Present(), outlet, Streams(connection), {}, {})  # type: ignore[arg-type]
    with capture_logs() as logs:
        hosted = Hosted(node, Prepare(number=2, function=function("any"), memory=128))
        await until(lambda: messages)
        if step != "prepare":
            hosted.start(Start(number=2, instance="i"))
            await until(lambda: len(messages) == 2)

    told = messages[-1]
    assert isinstance(told, Prepared if step == "prepare" else Gone)
    assert told.problem is not None
    assert (told.problem.text, [entry["event"] for entry in logs]) == ("a bug", ["instance failed"])
    assert not node.hosted


class Numbered(Running):
    """Process and owner of a relay."""

    number = 2


async def test_frames_for_an_instance_that_has_ended_count_as_unread(tmp_path: Path) -> None:
    asked, running = function("any"), Numbered()
    relay = Relay(
        Outlet(AgentEnd(EngineEnd(tmp_path, {})).connection),
        running,
        key=key_of(asked),
        function=asked,
        owner=running,
        recorder=recorder_of(tmp_path),
        on_work=lambda instance: None,
    )
    relay.kill(End.EXITED)
    relay.feed(b"a request")

    assert relay.accepted == 0
