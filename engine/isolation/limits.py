"""Interface of isolation mechanisms, which limit an instance and kill all processes that it started."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

OPEN_FILES = 2048
ENGINE_VARIABLE = "FUNCTIOND_ENGINE"  #: environment variable of every child: marker of its data directory
INSTANCE_VARIABLE = "FUNCTIOND_INSTANCE"  #: environment variable of every child: id of its instance


class Limits(Struct, frozen=True, kw_only=True):
    """Resources that one instance may use."""

    memory: int  #: MiB
    processes: int
    enters: bool = False  #: the process moves itself into its cgroups, by ``Enclosure.cgroup_fds``
    tmp: int = 0  #: MiB of files in memory, allowed in addition to ``memory``
    address_space: bool = True  #: limit address space; some programs reserve far more than they use


class Enclosure(Protocol):
    """Limits in force for one instance and all processes that it starts."""

    def admit(self, pid: int) -> None:
        """Apply the limits to a process that has not run user code yet. Raises OSError.

        May block, unless the process moves itself into its cgroups.
        """
        ...

    def cgroup_fds(self) -> list[int]:
        """Return new descriptors of the cgroups; a process enters by writing 0 to each."""
        ...

    @property
    def shared(self) -> bool:
        """True if the engine must measure the memory in use, because the kernel alone does not enforce the limit."""
        ...

    def alarm(self) -> int | None:
        """Return a new eventfd that counts when ``Limits.memory`` may be exceeded; None if the kernel cannot."""
        ...

    def kill(self) -> None:
        """Kill the processes inside that can be killed without a search. Does not wait for their exit."""
        ...

    def out_of_memory(self) -> bool:
        """Return whether the kernel killed a process of the instance for exceeding the memory limit."""
        ...

    def remove(self) -> None:
        """Kill all remaining processes, wait for their exit, then release resources. Blocks: call in a thread."""
        ...


class Isolation(Protocol):
    """Isolation mechanism of the host, chosen once at the start."""

    @property
    def name(self) -> str: ...

    def enclose(self, instance_id: str, limits: Limits) -> Enclosure:
        """Create the limits of an instance, whose process need not exist yet. May block. Raises OSError."""
        ...

    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        """Return the bytes of memory that each enclosure uses, without files. Blocks briefly."""
        ...

    def close(self) -> None:
        """Remove the resources that the mechanism has created on the host."""
        ...


def bound_descriptors(pid: int) -> None:
    """Forbid core files and limit the open descriptors of a process. Used by every mechanism."""
    lower(pid, resource.RLIMIT_CORE, 0)
    lower(pid, resource.RLIMIT_NOFILE, OPEN_FILES)


def lower(pid: int, kind: int, value: int) -> None:
    """Set the soft and the hard limit of another process's resource, never above its present hard limit."""
    hard = resource.prlimit(pid, kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (value, value))


def is_root() -> bool:
    return os.geteuid() == 0
