"""Interface of the mechanisms that limit an instance and kill all processes that it started."""

from __future__ import annotations

import os
import resource
from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

OPEN_FILES = 2048
ENGINE_VARIABLE = "FUNCTIOND_ENGINE"  #: environment variable of every child: marker of its data directory
INSTANCE_VARIABLE = "FUNCTIOND_INSTANCE"  #: environment variable of every child: id of its instance


class Limits(Struct, frozen=True, kw_only=True):
    """Resources that one instance may use."""

    memory: int  #: MiB
    processes: int
    cpu: int  #: thousandths of a processor: the weight of the instance while processors are short
    enters: bool = False  #: the process moves itself into its cgroups, by ``Enclosure.cgroup_fds``
    tmp: int = 0  #: MiB of files in memory, allowed in addition to ``memory``
    address_space: bool = True  #: limit address space; some programs reserve far more than they use


class Enclosure(ABC):
    """Limits of one instance, which apply to all processes that it starts. By default, the instance has no cgroups."""

    @abstractmethod
    def admit(self, pid: int) -> None:
        """Apply the limits to a process that has not run user code yet. Raises OSError if the limits cannot be applied.

        May block, unless the process itself enters its cgroups (see ``Limits.enters``).
        """

    def cgroup_fds(self) -> list[int]:
        """Return newly opened file descriptors, one for the process list of each cgroup of the instance.

        A process enters a cgroup by writing 0 to its descriptor.
        """
        return []

    @property
    def shared(self) -> bool:
        """True if the engine must measure the instance's memory, because the kernel alone cannot enforce the limit."""
        return True

    def alarm(self) -> int | None:
        """Return a new eventfd that the kernel signals when ``Limits.memory`` may be exceeded.

        Return None if unsupported.
        """
        return None

    def kill(self) -> None:  # noqa: B027
        """Kill those processes of the instance, besides its process group, that can be killed without a search.

        Does not wait for their exit.
        """

    def out_of_memory(self) -> bool:
        """Return whether the kernel killed a process of the instance because the memory limit was exceeded."""
        return False

    @abstractmethod
    def remove(self) -> None:
        """Kill all remaining processes of the instance, wait for their exit, then remove its cgroups, if it has any.

        Blocks: call in a thread.
        """


class Isolation(ABC):
    """Mechanism that limits instances on this host. Chosen once when the engine starts."""

    name: str

    @abstractmethod
    def enclose(self, instance_id: str, limits: Limits) -> Enclosure:
        """Create the limits of an instance, whose process need not exist yet.

        May block. Raises OSError if that fails.
        """

    @abstractmethod
    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        """Return, for each of the instances, the bytes of memory that it uses. Blocks briefly.

        With cgroups, files in memory are not counted.
        """

    def close(self) -> None:  # noqa: B027
        """Remove what the mechanism has created on the host, such as the engine's cgroup."""


def bound_descriptors(pid: int) -> None:
    """Forbid a process core files and limit the number of its open descriptors. Used by every mechanism."""
    lower(pid, resource.RLIMIT_CORE, 0)
    lower(pid, resource.RLIMIT_NOFILE, OPEN_FILES)


def lower(pid: int, kind: int, value: int) -> None:
    """Set the soft and the hard limit of a resource for another process, but never above its present hard limit."""
    hard = resource.prlimit(pid, kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (value, value))


def is_root() -> bool:
    return os.geteuid() == 0
