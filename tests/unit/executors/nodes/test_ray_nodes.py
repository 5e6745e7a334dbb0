"""Placement by Ray: rare sequences of events with recorded messages, a cluster that cannot be reached, and tickets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.executors.nodes import ray_nodes
from engine.executors.nodes.certificate import load_credentials
from engine.executors.nodes.launcher import ThisMachine
from engine.executors.nodes.options import GpuType, NodesOptions
from engine.executors.nodes.placement import Grant, Shape
from engine.executors.nodes.ray import RayPlacement
from engine.executors.nodes.ray_link import RayLink
from engine.runtimes.catalog import Family
from tests.support.executing import function, invocation
from tests.support.nodes import node_pool
from tests.support.ports import free_port
from tests.support.waiting import until

SMALL = Shape(128, 0.3, frozenset(), Family.PYTHON)


class Cluster:
    """Placement on a cluster that this test plays."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, local: Any = "never") -> None:
        self.sent: list[dict[str, Any]] = []
        monkeypatch.setattr(RayLink, "send", lambda link, **message: self.sent.append(message))
        monkeypatch.setattr(ray_nodes, "_JOIN_TIMEOUT", 0.2)
        credentials = load_credentials(folder, (), "", "")
        self.known = SimpleNamespace(members={}, address="127.0.0.1:1", credentials=credentials)
        options = NodesOptions(
            version="1",
            listen="127.0.0.1:1",
            folder=folder,
            ray="head:1",
            command="functiond agent",
            local=local,
            linger=0.0,
        )
        self.placement = RayPlacement(options, self.known)  # type: ignore[arg-type]
        self.placement.link.connected, self.placement.link.problem = True, ""

    def tell(self, **message: Any) -> None:
        self.placement._handle(message)

    def describe(self, *ids: str, draining: bool = False) -> None:
        sizes = {"address": "", "cpus": 2, "memory": 1 << 30, "gpus": 0, "labels": {}, "draining": draining}
        self.tell(nodes=[{"id": one, **sizes} for one in ids])

    def asked(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.sent if kind in message]

    async def wish(self, *, node: str = "") -> asyncio.Task[Grant]:
        """Begin to wait for a grant, which Ray gives on a node."""
        task = asyncio.ensure_future(self.placement.grant(SMALL, ()))
        await asyncio.sleep(0)
        if node:
            self.tell(granted=self.asked("grant")[-1]["grant"], node=node, gpus=[])
            await asyncio.sleep(0)
        return task

    def agent(self, node: str) -> Any:
        """Let an agent be ready."""
        agent: Any = SimpleNamespace(name=f"ray-{node}", state="ready", fenced=asyncio.Event(), lacks={}, drained=False)
        agent.drain = lambda: setattr(agent, "state", "draining")
        agent.fence = lambda cause: self.end(agent)
        self.placement.nodes.join(agent)
        return agent

    async def silent(self) -> tuple[Any, Grant]:
        """Return an agent that has fallen silent on node b, and the grant for which it has joined."""
        self.describe("b")
        waiting = await self.wish(node="b")
        agent = self.agent("b")
        grant = await waiting
        agent.state = "silent"
        self.placement.nodes.leave(agent)
        return agent, grant

    def end(self, agent: Any, state: str = "lost") -> None:
        agent.state = state
        agent.fenced.set()
        self.placement.nodes.leave(agent)


async def test_the_first_grant_starts_an_agent_and_the_last_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.describe("b")
    waiting = [await cluster.wish(node="b"), await cluster.wish(node="b")]
    (supervise,) = cluster.asked("supervise")
    agent = cluster.agent("b")
    grants = [await task for task in waiting]
    cluster.placement.release(grants[0])
    await asyncio.sleep(0.01)
    assert agent.state == "ready"
    cluster.placement.release(grants[1])

    await until(lambda: agent.state == "draining")
    assert supervise["command"][:4] == ["functiond", "agent", "--join", "https://127.0.0.1:1"]
    assert cluster.known.credentials.name_of(supervise["input"].rpartition(".")[0]) == "ray-b"
    assert [message["release"] for message in cluster.asked("release")] == [grant.number for grant in grants]


async def test_a_grant_is_asked_for_elsewhere_if_no_agent_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.describe("a", "b")
    waiting = await cluster.wish(node="b")
    await until(lambda: cluster.asked("grant")[-1]["avoid"] == ["b"])
    assert (cluster.known.members["ray-b"].state, cluster.known.members["ray-a"].state) == ("refused", "idle")

    cluster.tell(granted=cluster.asked("grant")[-1]["grant"], node="a", gpus=[])
    await asyncio.sleep(0)
    assert (await _machine(cluster, waiting, "a")).name == "ray-a"


async def test_a_node_is_left_out_once_for_all_grants_that_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.describe("b")
    waiting = [await cluster.wish(node="b") for _ in range(4)]
    await until(lambda: len(cluster.asked("release")) == 4)

    assert cluster.placement.nodes.by_name["ray-b"].delay == 2.0
    for task in waiting:
        task.cancel()


async def test_a_grant_on_a_node_whose_supervisor_hangs_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    agent, grant = await cluster.silent()
    cluster.placement.release(grant)
    cluster.end(agent)
    await asyncio.sleep(0.01)  # linger is over, and no agent can be sent away
    second = await cluster.wish(node="b")

    await until(lambda: cluster.asked("release")[-1]["release"] == cluster.asked("grant")[1]["grant"])
    second.cancel()


async def test_a_node_that_ray_has_lost_is_forgotten_when_nothing_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.describe("b")
    waiting = await cluster.wish(node="b")
    number = cluster.asked("supervise")[0]["number"]
    cluster.describe()
    cluster.tell(ended=number, status=None, output="")

    await until(lambda: cluster.known.members == {})
    waiting.cancel()


async def test_changes_of_many_nodes_ask_once_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    names = [f"n{number}" for number in range(30)]
    cluster.describe(*names)
    waiting = [await cluster.wish() for _ in range(50)]
    for name in names:
        cluster.placement.nodes._set_reason(cluster.placement.nodes.by_name[f"ray-{name}"], "refused")
    await asyncio.sleep(0.3)

    assert len(cluster.asked("grant")) == 100
    assert cluster.asked("grant")[-1]["avoid"] == sorted(names)
    for task in waiting:
        task.cancel()


async def test_cancelled_requests_take_no_capacity_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch, local="first")
    machine = ThisMachine(1, 512)
    cluster.placement.join(machine)
    held = await cluster.placement.grant(SMALL, ())
    waiting = [await cluster.wish() for _ in range(2000)]
    for task in waiting:
        task.cancel()
    cluster.placement.release(held)

    assert (await cluster.placement.grant(SMALL, ())).machine is machine


async def test_an_agent_of_an_earlier_placement_process_gets_no_more_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    agent, _ = await cluster.silent()
    cluster.tell(exited="it was killed")
    agent.state = "ready"
    cluster.placement.nodes.join(agent)

    assert agent.state == "draining"


async def _machine(cluster: Cluster, waiting: asyncio.Task[Grant], node: str) -> Any:
    cluster.agent(node)
    return (await waiting).machine


CONNECTED = """#!/bin/sh
echo '{"ready": {"ray": "2.60.0"}}'
exec sleep 100
"""


def test_a_ticket_is_good_for_one_connection_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    credentials = load_credentials(tmp_path, ["big"], "", "")
    first, second = credentials.make_ticket("ray-1"), credentials.make_ticket("ray-1")
    shown = second.rpartition(".")[0]  # as agents do, without the fingerprint

    assert second.endswith(f".{credentials.fingerprint}")
    assert credentials.name_of(first.rpartition(".")[0]) is None
    assert credentials.name_of(f"ray-1.{'0' * 64}") is None
    assert [credentials.name_of(shown), credentials.name_of(shown)] == ["ray-1", None]
    token = (tmp_path / "big.token").read_text().strip().rpartition(".")[0]
    assert [credentials.name_of(token), credentials.name_of(token)] == ["big", "big"]


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        (
            "/no/python",
            "the placement process failed: [Errno 2] No such file or directory: '/no/python'; see",
        ),
        (sys.executable, "cannot connect to Ray's head at 127.0.0.1:"),
        ("/bin/false", "the placement process has ended with status 1"),
    ],
)
async def test_this_machine_is_used_while_ray_is_away_and_the_problem_is_told(
    tmp_path: Path, python: str, problem: str
) -> None:
    ray = f"127.0.0.1:{free_port()}"
    async with node_pool(tmp_path, local="fallback", ray=ray, python=python) as opened:
        code = await opened.package({"index.py": "def handler(event, context):\n    return event\n"})

        outcome = await opened.pool.execute(function("handler", code=code), invocation())

        assert outcome.code == 0
        assert opened.pool.nodes is not None
        await until(lambda: problem in opened.launcher.report().problem)
        assert f"nothing is placed on nodes: {problem}" in opened.launcher.report().summary


async def test_a_gpu_that_the_settings_do_not_offer_fails_the_attempt(tmp_path: Path) -> None:
    gpus = {"t4": GpuType(memory=16384)}
    async with node_pool(tmp_path, ray="127.0.0.1:1", python="/no/python", gpus=gpus) as opened:
        code = await opened.package({"index.py": "def handler(event, context):\n    return event\n"})
        for details in ({"gpu_type": "v100"}, {"gpu_type": "t4", "gpu_memory": 16385}, {"gpu_memory": 1024}):
            outcome = await opened.pool.execute(function("handler", code=code, details=details), invocation())

            assert "executor.nodes.gpus offers t4 with at most 16384 MB" in outcome.message


async def test_messages_to_a_placement_process_that_was_killed_are_dropped(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(CONNECTED)
    program.chmod(0o755)
    seen: list[dict[str, Any]] = []
    link = RayLink(str(program), "127.0.0.1:1", seen.append)
    running = asyncio.create_task(link.run())
    await until(lambda: link.connected)
    link.send(release=1)
    assert link._process is not None
    os.kill(link._process.pid, signal.SIGKILL)
    while link.connected:
        link.send(release=2)
        await asyncio.sleep(0)
    link.send(release=3)

    assert seen == [{"ready": {"ray": "2.60.0"}}, {"exited": link.problem}]
    assert link.problem == "the placement process has ended with status -9"
    running.cancel()
    await link.close()
