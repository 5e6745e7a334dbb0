"""Nodes of a Ray cluster. An agent starts on a node with its first grant, and ends some time after the last.

Ray regards a node as used while a supervisor runs there, even without grants.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from itertools import count
from typing import Any

from msgspec import convert

from engine.executors.nodes.node import Node, NodeLost
from engine.executors.nodes.nodes import NodeSet
from engine.executors.nodes.options import NodesOptions
from engine.executors.nodes.ray_link import RayLink
from engine.executors.nodes.report import NodeReport, NodeState

_JOIN_TIMEOUT = 4.0  #: seconds from a grant until an agent is ready; then, the grant is asked for on other nodes
_DELAY, _LONGEST_DELAY = 1.0, 60.0  #: seconds until a node is used again whose agent did not join; doubled each time


def name_of(node_id: str) -> str:
    return f"ray-{node_id[:12]}"


class RayNode:
    """Node of the cluster (protocol ``Machine``)."""

    def __init__(self, node_id: str) -> None:
        self.id, self.name, self.most = node_id, name_of(node_id), -1
        self.address, self.labels, self.cpus, self.memory, self.gpus = "", tuple[str, ...](), 0.0, 0, 0.0
        self.lacks: dict[str, str] = {}  #: said by its last agent
        self.alive = True  #: Ray has not lost it
        self.draining = False  #: by Ray or the operator
        self.grants = 0  #: also those that wait for the agent
        self.agent: Node | None = None  #: from when it was ready until it is fenced
        self.supervisor = 0  #: number; 0: none runs
        self.ending = False  #: the agent is sent away
        self.joined = False  #: the supervisor's agent was ready
        self.reason = ""  #: why no agent is there, or can be started at present
        self.delay = _DELAY
        self.timer: asyncio.TimerHandle | None = None  #: ends the agent
        self.changed = asyncio.Event()  #: set, and replaced, by each change

    @property
    def state(self) -> NodeState:
        """State while no agent has joined."""
        idle: NodeState = "absent" if self.draining else "joining" if self.supervisor else "idle"
        return "refused" if self.reason else idle

    @property
    def usable(self) -> bool:
        """Whether further grants are welcome."""
        return self.alive and not (self.draining or self.reason) and (not self.agent or self.agent.state == "ready")

    def update(self, about: dict[str, Any]) -> None:
        """Note how Ray describes the node."""
        labels = {name: value for name, value in about["labels"].items() if name != "ray.io/node-id"}
        self.address, self.labels = about["address"], tuple(map("=".join, sorted(labels.items())))
        self.cpus, self.memory, self.gpus = float(about["cpus"]), about["memory"] >> 20, float(about["gpus"])
        self.alive, self.draining = True, self.draining or about["draining"]


class RayNodes:
    """All nodes of the cluster. ``on_change`` is called when one has become usable, or has ceased to be."""

    def __init__(self, options: NodesOptions, nodes: NodeSet, link: RayLink, on_change: Callable[[], None]) -> None:
        self.by_name: dict[str, RayNode] = {}
        self.numbers = count(1)  #: of grants and supervisors
        self._options, self._nodes, self._link, self._on_change = options, nodes, link, on_change
        self._loop = asyncio.get_running_loop()

    def note_grant(self, node: RayNode, change: int) -> None:
        """Count a grant on a node, or the end of one. Start or end its agent accordingly."""
        node.grants += change
        self._set_timer(node)
        self._update(node, notify=False)

    async def wait(self, node: RayNode) -> Node:
        """Wait until the agent of a node is ready. Raises NodeLost if it is not soon, or the node is not usable."""
        try:
            async with asyncio.timeout(_JOIN_TIMEOUT):
                while node.usable and node.agent is None:
                    await node.changed.wait()
        except TimeoutError:
            if node.usable:  # else another grant has waited as long
                self._set_reason(node, f"its agent has not joined within {_JOIN_TIMEOUT:g} s")
        if node.agent is None or not node.usable:
            raise NodeLost(f"node {node.name} cannot be used")
        return node.agent

    def _set_timer(self, node: RayNode) -> None:
        if node.timer is not None:
            node.timer.cancel()
        node.timer = None if node.grants else self._loop.call_later(self._options.linger, self._drain, node)

    def _drain(self, node: RayNode) -> None:
        """Send the agent away when its instances have ended."""
        node.ending = True
        if node.agent is None and node.supervisor:
            self._link.send(end=node.supervisor)
        elif node.agent is not None and node.agent.state == "ready":
            node.agent.drain()

    def join(self, agent: Node) -> None:
        """Note that an agent is ready, for the first time or again."""
        if (node := self.by_name.get(agent.name)) is None:
            agent.drain()  # Ray has lost the node meanwhile
            return
        node.agent, node.lacks, node.joined, node.reason, node.delay = agent, agent.lacks, True, "", _DELAY
        if node.draining or not node.supervisor:  # else that of an earlier placement process
            self._drain(node)
        else:
            self._set_timer(node)
        self._update(node)

    def leave(self, agent: Node) -> None:
        """Note that an agent is not ready any more, or that it is fenced."""
        if (node := self.by_name.get(agent.name)) is None or node.agent is not agent:
            return
        node.draining = node.draining or (agent.state == "draining" and not node.ending)
        if agent.fenced.is_set():
            node.agent = None
        self._update(node)

    def _start(self, node: RayNode) -> None:
        """Start a supervisor if the node needs one. Its agent gets a ticket, which passes through Ray."""
        needed = node.alive and node.grants > 0 and not (node.supervisor or node.agent or node.draining or node.reason)
        if not needed or not self._link.connected:
            return
        node.supervisor, node.ending, node.joined = next(self.numbers), False, False
        command = [*shlex.split(self._options.command), "--join", self._options.url or f"https://{self._nodes.address}"]
        command += ["--token", "-", "--cpus", f"{node.cpus:g}", "--memory", str(node.memory)]
        ticket = self._nodes.credentials.make_ticket(node.name) + "\n"
        self._link.send(supervise=node.id, number=node.supervisor, command=command, input=ticket)

    def ended(self, number: int, status: int | None, output: str) -> None:
        """Note the end of a supervisor. With status 0, nothing of its agent runs any more."""
        node = next((node for node in self.by_name.values() if node.supervisor == number), None)
        if node is None:
            return
        node.supervisor, node.reason = 0, ""
        if status == 0 and node.agent is not None:
            node.agent.fence("ended")
        if node.joined or node.ending:
            self._update(node)
        else:
            last = output.strip().rpartition("\n")[2].rpartition("reason=")[2]  # the last line may be that of a log
            self._set_reason(node, last or f"its agent has ended with status {status}")

    def _set_reason(self, node: RayNode, reason: str) -> None:
        """Use a node no more for a while, which becomes longer each time."""
        node.reason = reason
        self._loop.call_later(node.delay, self._retry, node, reason)
        node.delay = min(2 * node.delay, _LONGEST_DELAY)
        self._update(node)

    def _retry(self, node: RayNode, reason: str) -> None:
        if node.reason == reason and not node.supervisor:
            node.reason = ""
            self._update(node)

    def describe(self, described: list[dict[str, Any]]) -> None:
        """Note all nodes of the cluster that are alive."""
        for node in self.by_name.values():
            node.alive = False
        for about in described:
            node = self.by_name.setdefault(name_of(about["id"]), RayNode(about["id"]))
            node.update(about)
        for node in list(self.by_name.values()):
            if node.draining or not node.supervisor:
                self._drain(node)
            self._update(node, notify=False)
        self._on_change()

    def disconnected(self) -> None:
        """Let all agents finish their work: Ray ends the supervisors of a placement process that has exited."""
        for node in self.by_name.values():
            node.supervisor, node.reason = 0, ""
        self.describe([])

    def _update(self, node: RayNode, notify: bool = True) -> None:
        """Start an agent if the node needs one, and report the node. Forget it if Ray has lost it, and nothing runs."""
        self._start(node)
        if node.alive or node.agent is not None or node.grants:
            self._nodes.members[node.name] = convert(node, NodeReport, from_attributes=True)
        else:
            self.by_name.pop(node.name, None)
            self._nodes.members.pop(node.name, None)
        node.changed.set()
        node.changed = asyncio.Event()
        if notify:
            self._on_change()
