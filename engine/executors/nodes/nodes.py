"""All nodes of an engine: which of them have joined, and what the engine tells of them."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from anyio import to_thread
from msgspec import to_builtins
from msgspec.structs import replace

from engine.errors import Unavailable
from engine.executors.local.launcher import LocalOptions
from engine.executors.nodes import messages
from engine.executors.nodes.certificate import Credentials, load_credentials
from engine.executors.nodes.connection import Connection, ConnectionOwner
from engine.executors.nodes.listener import Listener
from engine.executors.nodes.node import Node
from engine.executors.nodes.options import NodesOptions
from engine.executors.nodes.packages import PackageSender
from engine.executors.nodes.placement import Used
from engine.executors.nodes.report import NodeReport, NodeState
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
    """Nodes that may join, by name.

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
        #: State of each node that may join while no agent of it is there.
        self.members = {name: NodeReport(name=name, labels=has, state="absent") for name, has in options.agents.items()}
        self.credentials: Credentials
        self._nodes: dict[str, Node] = {}  #: that are not fenced, by name
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: NodeSessions
        self._remaining: Callable[[], float]
        self.address = ""

    async def open(self, sessions: NodeSessions, remaining: Callable[[], float]) -> Listener:
        """Return a listener that admits agents. See ``NodeLauncher.run``."""
        self._sessions, self._remaining = sessions, remaining
        options = self._options
        self.credentials = await to_thread.run_sync(
            load_credentials, options.folder, options.agents, options.certificate, options.key
        )
        listener = Listener(options.listen, self.credentials, self._admit)
        self.address = "{}:{}".format(*listener.socket.getsockname()[:2])
        return listener

    def node(self, name: str) -> Node:
        """Return a node that has joined. Raises KeyError for an unknown name, and ValueError."""
        if name not in self.members:
            raise KeyError(name)
        if name not in self._nodes:
            raise ValueError(f"no agent of node {name} has joined")
        return self._nodes[name]

    @property
    def joined(self) -> list[Node]:
        """Nodes that are not fenced."""
        return list(self._nodes.values())

    def reports(self, used: Callable[[Node], Used]) -> tuple[NodeReport, ...]:
        """Return the state of all nodes. ``used`` returns the sums of the grants of a node."""
        members = ((self._nodes.get(name), member) for name, member in self.members.items())
        return tuple(member if node is None else node.report(used(node)) for node, member in members)

    async def close(self) -> None:
        """End all connections, and wait until nothing runs on any node."""
        await asyncio.gather(*(node.close() for node in self.joined))
        await asyncio.gather(*self._tasks)

    async def _admit(self, name: str, hello: messages.Hello, connection: Connection) -> ConnectionOwner | str:
        problem = self._find_problem(name, hello)
        if problem:
            self._show_end(name, "refused", problem)
            return problem
        rules = self._rules
        welcome = messages.Welcome(
            session=uuid.uuid4().hex,
            name=name,
            lease=self._options.lease,
            region=rules.region,
            processes=rules.processes,
            term_grace=rules.term_grace,
            sandbox=to_builtins(rules.sandbox) | self._options.sandbox,
            api_ports=self._options.api_ports if self._options.api else (),
        )
        self._nodes[name] = node = Node(
            hello,
            welcome,
            connection,
            member=self.members[name],
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
        if name not in self.members:
            return "its node has left the cluster"
        if hello.wire != messages.WIRE or hello.version != version:
            return f"it runs functiond {hello.version} ({hello.wire}), the engine {version} ({messages.WIRE})"
        if abs(ahead) > _CLOCKS:
            return f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the engine"
        if not (0 < hello.cpus < math.inf and hello.memory > 0):
            return f"it claims {hello.cpus} processors and {hello.memory} MB of memory; give it --cpus and --memory"
        if hello.previous:
            self._sessions.ended(hello.previous)
        if (node := self._nodes.get(name)) is None:
            return ""
        if hello.previous == node.session:
            node.fence("restarted")
            return ""
        if node.state in ("silent", "lost"):
            seconds = max(1, math.ceil(node.fence_at - asyncio.get_running_loop().time()))
            return f"an earlier agent of the node may still run work for {seconds} s"
        return "another agent has joined with this token; give each machine a node of its own"

    def _show_end(self, name: str, state: NodeState, reason: str) -> None:
        if name in self.members:
            self.members[name] = replace(self.members[name], state=state, reason=reason)

    def _note(self, node: Node) -> None:
        if node.fenced.is_set():
            self._nodes.pop(node.name, None)
            self._show_end(node.name, node.state, node.reason)
            if node.cause:
                self.losses[node.cause] = self.losses.get(node.cause, 0) + 1
                self.fence_seconds.observe(asyncio.get_running_loop().time() - node.heard)
            self.ping_seconds.add(node.ping_seconds)
            task = asyncio.ensure_future(self._sessions.remove(node.session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._on_change(node)

    def _count_bytes(self, size: int) -> None:
        self.package_bytes += size
