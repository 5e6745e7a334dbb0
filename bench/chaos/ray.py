"""Engine with two nodes of a Ray cluster, and the faults of Ray. ``ray start`` is started again when it has exited."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.agents import AGENT, Agent, below, free_port, ray_settings, ray_variables, settings, states, wait_for
from bench.chaos.cluster import ENVIRONMENT, Cluster, Member
from bench.chaos.faults import Faults, Pace
from bench.chaos.proxy import proxies
from tests.support.ray_cluster import RayCluster, books, cluster_to_start

#: Faults of one run, by kind. The head is its process ``gcs_server``, without which ``ray start`` ends the whole node.
RAY_DECK = {
    "kill agent": 3,
    "kill supervisor": 4,
    "kill engine": 2,
    "terminate engine": 1,
    "cut": 3,
    "cut to engine": 1,
    "cut to agent": 1,
    "kill placement": 3,
    "kill raylet": 3,
    "stop raylet": 3,
    "kill head": 2,
    "stop head": 3,
}
RAY_PACE = Pace(longest=20.0, rate=3.0)
_PARTS = ("placement", "raylet", "head")
_RAY = "ray"  #: all these suffer at most one fault at a time
_RECONNECT_TIMEOUT = 10  #: seconds without a head after which Ray's processes exit
_STOPS = {"raylet": (3.0, 15.0), "head": (2.0, 7.0)}  #: seconds
_GONE = 15  #: seconds that agents and grants get to end with the engine
#: Raylets look each 5 s whether their head is a new one, as without Redis, and then exit.
_VARIABLES = {"RAY_raylet_liveness_self_check_interval_ms": "5000"}


class RayNode(Agent):
    """Node of a Ray cluster. ``ray start`` takes the place of the supervisor, which runs while there are instances."""

    def __init__(self, ray: RayCluster, name: str, folder: Path) -> None:
        self.name, self.folder, self._ray = name, folder, ray
        self.killed = True  # its exits are Ray's

    @property
    def pid(self) -> int:
        """Node supervisor, an actor of Ray; 0: there is none."""
        for pid in self.processes():
            with suppress(OSError):
                return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return 0

    @property
    def exit_code(self) -> int | None:
        return self._ray.processes[self.name].poll()

    def start(self) -> None:
        self._ray.start_node(self.name)

    def processes(self) -> list[int]:
        """Return the processes of the agent without instances, from the one that the actor has started."""
        return below(self._ray.processes[self.name].pid, b"engine\0agent\0", *AGENT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL, *{self.pid} - {0})

    def owns(self, node: dict[str, Any]) -> bool:
        return f"zone={self.name}" in node["labels"]

    def stop(self) -> None:
        """Wait until the agent has ended with the engine."""
        wait_for(lambda: not self.processes(), _GONE)


class RayNodes(Cluster):
    """Engine with the nodes of a Ray cluster."""

    def __init__(self, ray: RayCluster, data: Path, environment: dict[str, str]) -> None:
        super().__init__(data, environment)
        self.ray = ray

    def ready(self) -> bool:
        """Return whether the engine knows all nodes. Agents join when instances are to start."""
        nodes = [node for node in states(self.server) if node["state"] in ("idle", "joining", "ready")]
        running = self.placement() and all(map(self.ray.runs, "ab"))
        return bool(running) and all(any(agent.owns(node) for node in nodes) for agent, _ in self.members)

    def placement(self) -> int:
        """Return the placement process; 0: there is none."""
        return next(iter(below(self.server.pid, b"ray_placement.py")), 0)

    def left(self) -> list[str]:
        return asyncio.run(self._left())

    async def _left(self) -> list[str]:
        async with books(self.ray) as record:
            for _ in range(_GONE):
                state = await record.read()
                if not state["waiting"] + state["held"] and all(state["idle"].values()):
                    return []
                await asyncio.sleep(1)
        return [f"Ray's books have grants, or nodes that are not idle: {state}"]


class RayFaults(Faults):
    def __init__(self, nodes: RayNodes, *arguments: Any) -> None:
        super().__init__(nodes, *arguments)
        self._nodes = nodes

    def _inflict(self, kind: str) -> str:
        verb, _, part = kind.partition(" ")
        if part not in _PARTS:
            return super()._inflict(kind)
        node = "b" if kind == "kill raylet" else self._random.choice("ab")
        self._until(self._whole, "Ray did not come back")
        if part == "placement":
            pid = self._nodes.placement()
        else:
            pid = self._nodes.ray.pid("raylet", node) if part == "raylet" else self._nodes.ray.pid("gcs_server")
        where = f"node {node}" if part == "raylet" else f"process {pid}"
        agent, _ = self._nodes.members[0]
        if verb == "kill":
            agent.signal(signal.SIGKILL, pid)
            return where
        seconds = self._seconds(_STOPS[part])
        agent.signal(signal.SIGSTOP, pid)
        self._begin(_RAY, seconds, partial(agent.signal, signal.SIGCONT, pid))
        return f"{where}, {seconds:.1f} s"

    def _whole(self) -> bool:
        return _RAY not in self._ends and bool(self._nodes.placement()) and all(map(self._nodes.ray.runs, "ab"))


@contextmanager
def ray_nodes(folder: Path, *, lease: float, local: str) -> Iterator[RayNodes]:
    """Run an engine with two nodes until the block ends."""
    data, port = folder / "data", free_port()
    with ExitStack() as stack:
        ray = stack.enter_context(cluster_to_start(reconnect_timeout=_RECONNECT_TIMEOUT))
        gates = dict(zip("ab", stack.enter_context(proxies(port, 2)), strict=True))
        ports = {name: gate.port for name, gate in gates.items()}
        values = ray_settings(ray, port, ports, folder)
        environment = settings(port, [], **values, lease=str(lease), local=local, linger="5")
        for variables in ray.variables.values():
            variables |= _VARIABLES
        asyncio.run(ray.start())
        made = RayNodes(ray, data, ENVIRONMENT | ray_variables(ray) | environment)
        stack.callback(lambda: made.server.end())
        made.members += [Member(RayNode(ray, name, folder / name), gate) for name, gate in gates.items()]
        yield made
