"""Double of the nodes of a pool, for those who show them."""

from __future__ import annotations

from engine.executors.nodes.report import NodeReport, NodesReport, NodesStatistics, WaitingShape
from engine.metrics.histogram import SECONDS, Histogram

WALLS = {
    "isolation": "bubblewrap, cgroup v2, seccomp",
    "network": "project",
    "users": "one for each project",
    "http_network": "mapped",
}
NODES = (
    NodeReport(
        name="big",
        labels=("gpu", "eu"),
        state="ready",
        address="10.0.0.2:51234",
        instances=3,
        busy=2,
        cpus=8.0,
        cpus_used=1.5,
        memory=16384,
        memory_used=1536,
        walls=WALLS,
        lacks={"node": "no node program is installed"},
        kills="pid namespace",
        heard=0.4,
        joined_at=1_800_000_000.0,
    ),
    NodeReport(name="small", labels=(), state="lost", reason="silent for 5.1 s", heard=61.0, cpus=2.0, memory=2048),
    NodeReport(name="old", labels=("eu",), state="refused", reason="its clock is 45 s behind", address="10.0.0.4:1"),
    NodeReport(name="away", labels=(), state="absent"),
    NodeReport(name="ray-3f9c21aa0b4d", labels=("zone=b",), state="idle", cpus=8.0, memory=4096, gpus=2.0),
)
PROBLEM = "Ray's head has not answered for 3 s"
WAITING = WaitingShape(
    cpus=1.0,
    memory=32768,
    labels=("gpu",),
    family="python",
    starts=4,
    functions=("shop/train",),
    seconds=12.3,
    fits=False,
)


class FixedNodes:
    """Nodes whose state never changes, except that ``drained`` notes their names."""

    def __init__(self) -> None:
        self.drained: list[str] = []

    def report(self) -> NodesReport:
        return NodesReport(nodes=NODES, waiting=(WAITING,), problem=PROBLEM)

    def statistics(self) -> NodesStatistics:
        times = Histogram(SECONDS).snapshot()
        return NodesStatistics(
            losses={"silent": 1}, package_bytes=4096, grant_seconds=times, fence_seconds=times, ping_seconds=times
        )

    def drain(self, name: str) -> None:
        states = {node.name: node.state for node in NODES}
        if states[name] != "ready":
            raise ValueError(f"it is {states[name]}")
        self.drained.append(name)
