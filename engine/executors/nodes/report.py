"""State of nodes, as the command line, the API, the console and the metrics show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, Protocol

from msgspec import Struct

from engine.metrics.histogram import Distribution

#: Names of the cells of ``NodeReport.row``.
COLUMNS = ("NODE", "STATE", "BUSY", "CPU", "MEMORY", "NETWORK", "ISOLATION", "HEARD", "LABELS")
NodeState = Literal["absent", "idle", "joining", "ready", "silent", "draining", "lost", "refused"]


class NodeReport(Struct, frozen=True, kw_only=True):
    """State of one node that the settings name, or that the cluster has."""

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
    gpus: float = 0.0
    gpus_used: float = 0.0  #: GPUs granted to instances
    walls: dict[str, str] = {}  #: see ``Launcher.walls``
    lacks: dict[str, str] = {}  #: families of runtimes that cannot run there, with the reasons
    kills: str = ""  #: means by which the supervisor ends everything
    heard: float | None = None  #: seconds since the last ping
    joined_at: float | None = None  #: seconds since the epoch

    @property
    def row(self) -> tuple[str, ...]:
        """Cells of a table with ``COLUMNS``."""
        return (
            self.name,
            self.state,
            f"{self.busy}/{self.instances}",
            f"{self.cpus_used:g}/{self.cpus:g}",
            f"{self.memory_used}/{self.memory} MB" + (f", {self.gpus_used:g}/{self.gpus:g} GPU" if self.gpus else ""),
            self.walls.get("network", ""),
            self.walls.get("isolation", ""),
            "" if self.heard is None else f"{self.heard:.1f} s ago",
            ", ".join(self.labels),
        )

    @property
    def notes(self) -> Iterator[str]:
        """Sentences about what the table leaves out."""
        if self.reason:
            yield f"{self.name} is {self.state}: {self.reason}"
        if self.kills and self.kills != "pid namespace":
            yield f"{self.name} ends processes by {self.kills}: some may outlive its lease"
        for family, reason in self.lacks.items():
            yield f"{self.name} lacks {family}: {reason}"


class WaitingShape(Struct, frozen=True, kw_only=True):
    """Size of instances whose starts wait for capacity."""

    cpus: float
    memory: int  #: MiB
    labels: tuple[str, ...]
    family: str  #: of the runtime
    starts: int
    functions: tuple[str, ...]  #: up to 10 of them, as ``project/function``
    gpus: float = 0.0
    seconds: float  #: for which the first of them waits
    fits: bool  #: a node that has joined could hold it if it were empty

    @property
    def text(self) -> str:
        """Description for messages, such as ``1536 MB, 1 CPU, labels gpu``."""
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        gpus = f", {self.gpus:.2g} GPU" if self.gpus else ""
        return f"{self.memory} MB, {self.cpus:g} CPU{gpus}{labels} ({self.family})"


class NodesReport(Struct, frozen=True, kw_only=True):
    nodes: tuple[NodeReport, ...]
    waiting: tuple[WaitingShape, ...] = ()
    problem: str = ""  #: why nothing is placed on nodes

    @property
    def summary(self) -> str:
        """Number of nodes by state, and the sizes that fit nowhere."""
        states = Counter(node.state for node in self.nodes)
        counts = ", ".join(f"{amount} {state}" for state, amount in states.items())
        unfit = (f"; no node could hold an instance of {shape.text}" for shape in self.waiting if not shape.fits)
        problem = f"; nothing is placed on nodes: {self.problem}" if self.problem else ""
        return (counts or "none") + problem + "".join(unfit)

    @property
    def notes(self) -> Iterator[str]:
        """Sentences about problems of nodes, and about starts that wait."""
        if self.problem:
            yield f"nothing is placed on nodes: {self.problem}"
        for node in self.nodes:
            yield from node.notes
        for shape in self.waiting:
            fits = "" if shape.fits else "; no node that has joined could hold one"
            words = ("starts", "wait, the first") if shape.starts > 1 else ("start", "waits")
            waiting = f"{shape.starts} {words[0]} of {shape.text} {words[1]} for {shape.seconds:.0f} s"
            yield f"{waiting}: {', '.join(shape.functions)}{fits}"


class NodesStatistics(Struct, frozen=True, kw_only=True):
    """Numbers since the engine's start, for metrics."""

    losses: dict[str, int]  #: by reason: ``silent``, ``connection``, ``restarted``, ``ended``
    package_bytes: int  #: sent to nodes
    grant_seconds: Distribution  #: from the wish for an instance to its capacity
    fence_seconds: Distribution  #: from the last ping of a lost node until it is fenced
    ping_seconds: Distribution  #: delay of pings


class Nodes(Protocol):
    """Nodes of a pool, for those who look at them."""

    def report(self) -> NodesReport: ...

    def statistics(self) -> NodesStatistics: ...

    def drain(self, name: str) -> None:
        """Let no instance start on a node, and its agent exit when the last has ended.

        Raises KeyError for an unknown name, and ValueError with the reason if the node has no agent.
        """
