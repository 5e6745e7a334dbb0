"""Faults of an engine with nodes, drawn by a seed: kills, stops, and cuts of the network."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from msgspec import Struct

from bench.chaos.cluster import Cluster, Member
from bench.chaos.proxy import TO_AGENT, TO_ENGINE
from bench.chaos.work import Clients
from bench.server import MAX_WAIT, ServerFailed

#: Faults of one run, by kind.
DECK = {
    "kill agent": 7,
    "kill supervisor": 5,
    "kill engine": 3,
    "terminate engine": 3,
    "stop agent": 6,
    "stop engine": 4,
    "cut": 7,
    "cut to engine": 4,
    "cut to agent": 4,
    "stop supervisor, cut": 3,
}
_CUTS = {"cut": (TO_ENGINE, TO_AGENT), "cut to engine": (TO_ENGINE,), "cut to agent": (TO_AGENT,)}
_STOPS, _ONE_WAY = (1.0, 12.0), (2.0, 20.0)  #: seconds
#: Seconds of whole cuts, and how often each range is drawn.
_WHOLE, _SHARES = ((2.0, 12.0), (12.0, 30.0), (30.0, 60.0)), (6, 2, 1)
_ENGINE = "engine"
_TICK = 0.05


class Pace(Struct, frozen=True):
    """Seconds between faults, the longest duration of one, and requests a second meanwhile."""

    gap: tuple[float, float] = (2.0, 5.0)
    longest: float = 60.0
    rate: float = 5.0


class Faults:
    """Faults of a cluster. Each node, and the engine, suffers at most one at a time."""

    def __init__(self, cluster: Cluster, clients: Clients, random: Random, pace: Pace) -> None:
        self._cluster, self._clients, self._random, self._pace = cluster, clients, random, pace
        self._ends: dict[str, tuple[float, Callable[[], None]]] = {}  #: when and how the fault of a part ends

    def inflict(self, deck: dict[str, int]) -> Iterator[tuple[str, str]]:
        """Inflict all faults of the deck in random order, and yield the kind of each, and its part and duration."""
        drawn = [kind for kind, count in deck.items() for _ in range(count)]
        self._random.shuffle(drawn)
        for kind in drawn:
            self._wait(self._random.uniform(*self._pace.gap))
            self._cluster.check_engine()
            yield kind, self._inflict(kind)

    def heal(self) -> None:
        """End all faults."""
        for part in list(self._ends):
            self._ends.pop(part)[1]()

    def _inflict(self, kind: str) -> str:
        if kind.endswith(" engine") and kind not in _CUTS:
            self._until(lambda: _ENGINE not in self._ends, "the engine was not continued")
            return self._hit_engine(kind)
        members = list[Member]()

        def found() -> bool:
            members[:] = [one for one in self._cluster.members if self._unharmed(one)]
            return bool(members)

        self._until(found, "no agent came back")
        return self._hit_node(kind, self._random.choice(members))

    def _hit_engine(self, kind: str) -> str:
        if kind == "stop engine":
            seconds = self._seconds(_STOPS)
            self._cluster.signal_engine(signal.SIGSTOP)
            self._begin(_ENGINE, seconds, partial(self._cluster.signal_engine, signal.SIGCONT))
            return f"{seconds:.1f} s"
        if kind == "kill engine":
            self._cluster.kill_engine()
        else:
            self._cluster.terminate_engine()
        self._clients.port = self._cluster.server.port
        return "started again"

    def _hit_node(self, kind: str, member: Member) -> str:
        agent, proxy = member
        if kind in _CUTS:
            bounds = self._random.choices(_WHOLE, _SHARES)[0] if kind == "cut" else _ONE_WAY
            seconds = self._seconds(bounds)
            proxy.cut(*_CUTS[kind])
            self._begin(agent.name, seconds, proxy.heal)
            return f"{agent.name}, {seconds:.1f} s"
        if kind == "stop supervisor, cut":
            seconds = self._seconds(_STOPS)
            agent.signal(signal.SIGSTOP, agent.pid)
            proxy.cut(TO_ENGINE, TO_AGENT)

            def end() -> None:
                agent.signal(signal.SIGCONT, agent.pid)
                proxy.heal()

            self._begin(agent.name, seconds, end)
            return f"{agent.name}, {seconds:.1f} s"
        if kind == "kill supervisor":
            agent.kill()
            return agent.name
        processes = agent.processes()
        if kind == "kill agent":
            agent.signal(signal.SIGKILL, *self._random.sample(processes, min(1, len(processes))))
            return agent.name
        seconds = self._seconds(_STOPS)
        stopped = processes[-1:] if self._random.random() < 0.7 else processes[1:]
        agent.signal(signal.SIGSTOP, *stopped)
        self._begin(agent.name, seconds, lambda: agent.signal(signal.SIGCONT, *({*stopped} & {*agent.processes()})))
        return f"{agent.name}, {seconds:.1f} s"

    def _unharmed(self, member: Member) -> bool:
        agent = member.agent
        return agent.name not in self._ends and agent.exit_code is None and len(agent.processes()) > 1

    def _seconds(self, bounds: tuple[float, float]) -> float:
        return min(self._random.uniform(*bounds), self._pace.longest)

    def _begin(self, part: str, seconds: float, end: Callable[[], None]) -> None:
        self._ends[part] = time.monotonic() + seconds, end

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= deadline, "")

    def _until(self, true: Callable[[], bool], problem: str) -> None:
        """Wait, and end the faults that are over meanwhile."""
        deadline = time.monotonic() + MAX_WAIT
        while not true():
            now = time.monotonic()
            for part in [part for part, (at, _) in self._ends.items() if at <= now]:
                self._ends.pop(part)[1]()
            if now > deadline:
                raise ServerFailed(problem)
            time.sleep(_TICK)
