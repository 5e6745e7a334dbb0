"""Limits without cgroups: resource limits per process, and a search for the processes that an instance started.

The limits are weaker than those by cgroups in three points:

- Memory is limited as address space and per process. The limit applies to Python without GPUs only, since other
  programs reserve far more than they use (Node.js has a heap limit instead).
- Instances of an engine that runs as root may start any number of processes.
- The memory of all processes of an instance together is measured only at intervals, and may exceed the limit between
  two measurements.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

from engine.isolation.limits import INSTANCE_VARIABLE, Enclosure, Isolation, Limits, bound_descriptors, is_root, lower
from engine.isolation.processes import kill_marked, resident

HEADROOM = 256 << 20  #: bytes of address space that an interpreter reserves without using them


class RlimitIsolation(Isolation):
    name = "rlimits"

    def enclose(self, instance_id: str, limits: Limits) -> RlimitEnclosure:
        return RlimitEnclosure(instance_id, limits)

    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        sizes = resident([enclosure.pid for enclosure in enclosures if isinstance(enclosure, RlimitEnclosure)])
        return [sizes[enclosure.pid] if isinstance(enclosure, RlimitEnclosure) else 0 for enclosure in enclosures]


class RlimitEnclosure(Enclosure):
    """Limits of one instance. The kernel kills no process for them: the runtime reports a failed allocation."""

    def __init__(self, instance_id: str, limits: Limits) -> None:
        self._instance_id, self._limits = instance_id, limits
        self.pid = 0  #: 0 until ``admit``

    def admit(self, pid: int) -> None:
        self.pid = pid
        bound_descriptors(pid)
        if self._limits.address_space:
            lower(pid, resource.RLIMIT_AS, (self._limits.memory << 20) + HEADROOM)
        if not is_root():  # counts per user, not per instance: all instances share the limit
            lower(pid, resource.RLIMIT_NPROC, self._limits.processes)

    def remove(self) -> None:
        kill_marked(INSTANCE_VARIABLE, self._instance_id)
