"""State of nodes, as the command line, the API, the console and the metrics show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.metrics.histogram import Distribution

NodeState = Literal["absent", "joining", "ready", "silent", "draining", "lost", "refused"]


class NodeReport(Struct, frozen=True, kw_only=True):
    """State of one node that the settings name."""

    name: str
    labels: tuple[str, ...]
    state: NodeState
    reason: str = ""  #: why it was refused, or lost
    address: str = ""  #: of the agent's connection
    instances: int = 0
    busy: int = 0  #: instances that serve requests
    cpus: float = 0.0
    cpus_used: float = 0.0  #: processors granted to instances
    memory: int = 0  #: MiB
    memory_used: int = 0  #: MiB granted to instances
    walls: dict[str, str] = {}  #: see ``Launcher.walls``
    lacks: dict[str, str] = {}  #: families of runtimes that cannot run there, with the reasons
    kills: str = ""  #: means by which the supervisor ends everything
    heard: float | None = None  #: seconds since the last ping
    joined_at: float | None = None  #: seconds since the epoch


class WaitingShape(Struct, frozen=True, kw_only=True):
    """Size of instances whose starts wait for capacity."""

    cpus: float
    memory: int  #: MiB
    labels: tuple[str, ...]
    family: str  #: of the runtime
    starts: int
    functions: tuple[str, ...]  #: up to 10 of them, as ``project/function``
    seconds: float  #: for which the first of them waits
    fits: bool  #: a node that has joined could hold it if it were empty

    @property
    def text(self) -> str:
        """Description for messages, such as ``1536 MB, 1 CPU, labels gpu``."""
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return f"{self.memory} MB, {self.cpus:g} CPU{labels} ({self.family})"


class NodesReport(Struct, frozen=True, kw_only=True):
    nodes: tuple[NodeReport, ...]
    waiting: tuple[WaitingShape, ...] = ()


class NodesStatistics(Struct, frozen=True, kw_only=True):
    """Numbers since the engine's start, for metrics."""

    losses: dict[str, int]  #: by reason: ``silent``, ``connection``, ``restarted``
    package_bytes: int  #: sent to nodes
    grant_seconds: Distribution  #: from the wish for an instance to its capacity
    fence_seconds: Distribution  #: from the last ping of a lost node until it is fenced
    ping_seconds: Distribution  #: delay of pings


class NodeSessions(Protocol):
    """Sessions of nodes that may run work, kept in the storage for the next engine."""

    async def add(self, session: str) -> None:
        """Store a session before its first instance starts. Raises Unavailable: the node must not run any work."""
        ...

    async def remove(self, session: str) -> None:
        """Forget a session of which nothing runs any more."""
        ...

    def ended(self, session: str) -> None:
        """Note that nothing of a session of the previous engine runs any more."""
        ...


class Nodes(Protocol):
    """Nodes of a pool."""

    async def run(
        self,
        sessions: NodeSessions,
        remaining: Callable[[], float],
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Admit agents until cancelled. ``remaining`` returns for how many seconds the engine may certainly write."""

    def report(self) -> NodesReport: ...

    def statistics(self) -> NodesStatistics: ...

    def drain(self, name: str) -> None:
        """Let no instance start on a node, and its agent exit when the last has ended.

        Raises KeyError for an unknown name, and ValueError with the reason if the node has no agent.
        """
