"""Engine, its nodes and the proxies between them, with the faults that they can suffer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.agents import Agent, agents, free_port, settings, states
from bench.chaos.proxy import Proxy, proxies
from bench.server import Engine, ServerFailed

NAMES = ("n1", "n2", "n3")
INSTANCES = 10  #: of 128 MB on each node; more than the load needs, so that lost work runs again at once
_WATCH = 0.3  #: seconds between two looks at the supervisors

#: Functions write to a file of the host, the disk needs no spare room, and the engine stops soon.
ENVIRONMENT = {
    "FUNCTIOND_EXECUTOR__ISOLATION": "process",
    "FUNCTIOND_STORAGE__FREE_SPACE": "0",
    "FUNCTIOND_STORAGE__BALLAST": "0",
}


class Member(NamedTuple):
    """Node, and the proxy through which its agent reaches the engine."""

    agent: Agent
    proxy: Proxy


class Cluster:
    """Engine with three nodes. Supervisors that have exited are started again."""

    def __init__(self, data: Path, environment: dict[str, str]) -> None:
        self.data, self._environment = data, environment
        self.server = self._start()
        self.members: list[Member] = []
        self.problems: list[str] = []  #: exits that nobody caused
        self.restarts = 0  #: of supervisors
        self._lock, self._ended = threading.Lock(), threading.Event()

    def _start(self) -> Engine:
        server = Engine(self.data, **self._environment)
        server.wait_until_serving()
        return server

    # --- faults of the engine ---

    def check_engine(self) -> None:
        code = self.server.wait(0)
        if code is not None:
            raise ServerFailed(f"the engine exited with {code}:\n{self.server.log[-5000:]}")

    def kill_engine(self) -> None:
        self.server.kill()
        self.server = self._start()

    def terminate_engine(self) -> None:
        self.server.stop()
        if code := self.server.wait(0):
            self.problems.append(f"the engine exited with {code} after SIGTERM")
        self.server = self._start()

    def signal_engine(self, number: signal.Signals) -> None:
        self.server.signal(number)

    # --- nodes ---

    def ready(self) -> bool:
        """Return whether instances can start on all nodes."""
        nodes = states(self.server)
        return all(any(agent.owns(node) and node["state"] == "ready" for node in nodes) for agent, _ in self.members)

    def left(self) -> list[str]:
        """Return what is left outside the nodes when the engine has ended."""
        return []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Start supervisors that have exited again until the block ends."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH):
            for agent, _ in self.members:
                code = agent.exit_code
                if code is None:
                    continue
                if not agent.killed:
                    self.problems.append(f"the supervisor of {agent.name} exited with {code}:\n{agent.log[-2000:]}")
                self.restarts += 1
                agent.start()


@contextmanager
def cluster(folder: Path, *, lease: float, local: str) -> Iterator[Cluster]:
    """Run an engine with nodes until the block ends."""
    data, port = folder / "data", free_port()
    environment = ENVIRONMENT | settings(port, NAMES, lease=str(lease), local=local)
    made = Cluster(data, environment)
    with ExitStack() as stack:
        stack.callback(lambda: made.server.end())
        gates = stack.enter_context(proxies(port, len(NAMES)))
        for name, proxy in zip(NAMES, gates, strict=True):
            (agent,) = stack.enter_context(agents(data, proxy.port, [name], folder, instances=INSTANCES))
            agent.start()
            made.members.append(Member(agent, proxy))
        yield made
