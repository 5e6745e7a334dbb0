"""All nodes of an engine: which of them have joined, and what the engine tells of them."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from anyio import TASK_STATUS_IGNORED, to_thread
from anyio.abc import TaskStatus
from msgspec import to_builtins

from engine.errors import Unavailable
from engine.executors.local.launcher import LocalOptions
from engine.executors.nodes import messages
from engine.executors.nodes.certificate import load_credentials
from engine.executors.nodes.connection import Connection, ConnectionOwner
from engine.executors.nodes.listener import Listener
from engine.executors.nodes.node import Node
from engine.executors.nodes.options import NodesOptions
from engine.executors.nodes.packages import PackageSender
from engine.executors.nodes.placement import Used
from engine.executors.nodes.report import NodeReport
from engine.executors.nodes.streams import ApiStreams
from engine.metrics.histogram import Histogram

_CLOCKS = 30.0  #: seconds that the clock of a node may be off


class NodeSessions(Protocol):
    """Sessions of nodes that may run work, stored for the next engine until nothing of them runs any more.

    ``add`` raises Unavailable. ``ended`` notes that a session of the previous engine is over.
    """

    async def add(self, session: str) -> None: ...

    async def remove(self, session: str) -> None: ...

    def ended(self, session: str) -> None: ...


class NodeSet:
    """Nodes of the settings, by name.

    ``rules`` are those of instances on this machine, which nodes keep, too. ``package_file`` returns the path of a
    package as it was received, by its SHA-256. ``on_change`` is called with each change of a node's state.
    """

    def __init__(
        self,
        options: NodesOptions,
        rules: LocalOptions,
        package_file: Callable[[str], Path],
        on_change: Callable[[Node], None],
    ) -> None:
        self.losses: dict[str, int] = {}
        self.package_bytes = 0
        self.fence_seconds, self.ping_seconds = Histogram(), Histogram()
        self._options, self._rules, self._package_file, self._on_change = options, rules, package_file, on_change
        self._nodes: dict[str, Node] = {}  #: that have joined last, by name; possibly fenced
        self._refusals: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: NodeSessions
        self._remaining: Callable[[], float]
        self.address = ""

    async def run(
        self,
        sessions: NodeSessions,
        remaining: Callable[[], float],
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Admit agents until cancelled. ``remaining`` returns for how many seconds the engine may certainly write."""
        self._sessions, self._remaining = sessions, remaining
        options = self._options
        credentials = await to_thread.run_sync(
            load_credentials, options.folder, options.agents, options.certificate, options.key
        )
        listener = Listener(options.listen, credentials, self._admit)
        self.address = "{}:{}".format(*listener.socket.getsockname()[:2])
        task_status.started()
        await listener.run()

    def node(self, name: str) -> Node:
        """Return a node that has joined. Raises KeyError for a name that is not in the settings, and ValueError."""
        if name not in self._options.agents:
            raise KeyError(name)
        node = self._nodes.get(name)
        if node is None or node.fenced.is_set():
            raise ValueError(f"no agent of node {name} has joined")
        return node

    @property
    def joined(self) -> list[Node]:
        """Nodes that are not fenced."""
        return [node for node in self._nodes.values() if not node.fenced.is_set()]

    def reports(self, used: Callable[[Node], Used]) -> tuple[NodeReport, ...]:
        """Return the state of all nodes. ``used`` returns the sums of the grants of a node."""
        return tuple(self._report(name, used) for name in self._options.agents)

    def _report(self, name: str, used: Callable[[Node], Used]) -> NodeReport:
        node, refusal = self._nodes.get(name), self._refusals.get(name, "")
        labels = self._options.agents[name]
        if node is not None and not node.fenced.is_set():
            return node.report(used(node))
        if node is not None and not refusal:
            return NodeReport(name=name, labels=labels, state=node.state, reason=node.reason)
        return NodeReport(name=name, labels=labels, state="refused" if refusal else "absent", reason=refusal)

    async def close(self) -> None:
        """End all connections, and wait until nothing runs on any node."""
        await asyncio.gather(*(node.close() for node in self.joined))
        await asyncio.gather(*self._tasks)

    async def _admit(self, name: str, hello: messages.Hello, connection: Connection) -> ConnectionOwner | str:
        problem = self._find_problem(name, hello)
        if problem:
            self._refusals[name] = problem
            return problem
        self._refusals.pop(name, None)
        rules = self._rules
        welcome = messages.Welcome(
            session=uuid.uuid4().hex,
            name=name,
            lease=self._options.lease,
            region=rules.region,
            processes=rules.processes,
            term_grace=rules.term_grace,
            sandbox=to_builtins(rules.sandbox),
            api_ports=self._options.api_ports if self._options.api else (),
        )
        self._nodes[name] = node = Node(
            hello,
            welcome,
            connection,
            labels=self._options.agents[name],
            packages=PackageSender(connection, self._package_file, self._count_bytes),
            streams=ApiStreams(connection, self._options.api),
            remaining=self._remaining,
            on_change=self._note,
        )
        try:
            await self._sessions.add(welcome.session)
        except Unavailable as unavailable:
            node.end("refused", f"the engine cannot write: {unavailable}")
            return node.reason
        messages.send(connection, welcome)
        return node

    def _find_problem(self, name: str, hello: messages.Hello) -> str:
        """Return why an agent cannot join; empty: it can."""
        ahead, version = hello.at - time.time(), self._options.version
        if hello.wire != messages.WIRE or hello.version != version:
            return f"it runs functiond {hello.version} ({hello.wire}), the engine {version} ({messages.WIRE})"
        if abs(ahead) > _CLOCKS:
            return f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the engine"
        if not (0 < hello.cpus < math.inf and hello.memory > 0):
            return f"it claims {hello.cpus} processors and {hello.memory} MB of memory; give it --cpus and --memory"
        if hello.previous:
            self._sessions.ended(hello.previous)
        node = self._nodes.get(name)
        if node is None or node.fenced.is_set():
            return ""
        if hello.previous == node.session:
            node.fence("restarted")
            return ""
        if node.state in ("silent", "lost"):
            seconds = max(1, math.ceil(node.fence_at - asyncio.get_running_loop().time()))
            return f"an earlier agent of the node may still run work for {seconds} s"
        return "another agent has joined with this token; give each machine a node of its own"

    def _note(self, node: Node) -> None:
        self._on_change(node)
        if not node.fenced.is_set():
            return
        if node.cause:
            self.losses[node.cause] = self.losses.get(node.cause, 0) + 1
            self.fence_seconds.observe(asyncio.get_running_loop().time() - node.heard)
        self.ping_seconds.add(node.ping_seconds)
        task = asyncio.ensure_future(self._sessions.remove(node.session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count_bytes(self, size: int) -> None:
        self.package_bytes += size
