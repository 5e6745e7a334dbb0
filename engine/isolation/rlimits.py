"""Limits without a cgroup: what a process can be refused, and a search for what it left behind.

Weaker in three ways: memory is counted as address space and for each process alone; that is said of Python only, since
others reserve far more than they use (of Node.js the heap is bounded instead); root may start any number of processes.
What all processes of an instance use together is looked at now and then, and may be exceeded for a moment.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

from engine.isolation.limits import INSTANCE_VARIABLE, Enclosure, Limits, bound_descriptors, is_root, lower
from engine.isolation.processes import kill_marked, resident

HEADROOM = 256 << 20  #: bytes of address space an interpreter takes without using the memory


class RlimitIsolation:
    name = "rlimits"

    def enclose(self, instance_id: str, limits: Limits) -> RlimitEnclosure:
        return RlimitEnclosure(instance_id, limits)

    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        found = resident([one.pid for one in enclosures if isinstance(one, RlimitEnclosure)])
        return [found[one.pid] if isinstance(one, RlimitEnclosure) else 0 for one in enclosures]

    def close(self) -> None:
        """Nothing was made."""


class RlimitEnclosure:
    shared = True

    def __init__(self, instance_id: str, limits: Limits) -> None:
        self._instance_id, self._limits = instance_id, limits
        self.pid = 0  #: until it is admitted

    def admit(self, pid: int) -> None:
        self.pid = pid
        bound_descriptors(pid)
        if self._limits.address_space:
            lower(pid, resource.RLIMIT_AS, (self._limits.memory << 20) + HEADROOM)
        if not is_root():  # counted for the user, not for the instance: all instances share it
            lower(pid, resource.RLIMIT_NPROC, self._limits.processes)

    def cgroup_fds(self) -> list[int]:
        return []

    def alarm(self) -> None:
        """Nobody counts its memory."""

    def kill(self) -> None:
        """The process group is killed by who owns the process; the others need the search in ``remove``."""

    def out_of_memory(self) -> bool:
        """Here the runtime itself sees a failed allocation, and answers."""
        return False

    def remove(self) -> None:
        kill_marked(INSTANCE_VARIABLE, self._instance_id)
