"""The seam of isolation: an instance is enclosed within limits, and ended with all that it started."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

OPEN_FILES = 2048
ENGINE_VARIABLE = "FUNCTIOND_ENGINE"  #: in every child's environment: which data directory it belongs to
INSTANCE_VARIABLE = "FUNCTIOND_INSTANCE"  #: and which instance


class Limits(Struct, frozen=True, kw_only=True):
    """What one instance may use."""

    memory: int  #: MB
    processes: int
    enters: bool = False  #: whether the process goes into its groups itself, through ``Enclosure.doors``
    tmp: int = 0  #: MB of files that lie in its memory, and may lie there beside ``memory``
    address_space: bool = True  #: whether that tells of its memory; some programs reserve far more than they use


class Enclosure(Protocol):
    """What holds one instance and every process that it starts."""

    def admit(self, pid: int) -> None:
        """Put a process that has not yet run user code within the limits. May block, unless it enters by itself.

        Raises OSError.
        """
        ...

    def cgroup_fds(self) -> list[int]:
        """New descriptors; a process enters by writing 0 to each."""
        ...

    @property
    def shared(self) -> bool:
        """Whether something besides the kernel has to see to its memory."""
        ...

    def alarm(self) -> int | None:
        """A new eventfd that counts whenever ``memory`` may have been exceeded; None where nothing tells."""
        ...

    def kill(self) -> None:
        """Kill what is inside, as far as that needs no search and no waiting."""
        ...

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something inside because of its memory limit."""
        ...

    def remove(self) -> None:
        """Kill the rest, wait until it is gone, forget the enclosure. Blocks: for a thread."""
        ...


class Isolation(Protocol):
    """One mechanism of the host, found once at the start."""

    @property
    def name(self) -> str: ...

    def enclose(self, instance_id: str, limits: Limits) -> Enclosure:
        """Limits for an instance, whose process need not be there yet. May block. Raises OSError."""
        ...

    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        """Bytes of memory that each uses, files not counted. Blocks for a moment."""
        ...

    def close(self) -> None:
        """Give back what was made on the host."""
        ...


def bound_descriptors(pid: int) -> None:
    """No core files, and few enough descriptors: right for every mechanism."""
    lower(pid, resource.RLIMIT_CORE, 0)
    lower(pid, resource.RLIMIT_NOFILE, OPEN_FILES)


def lower(pid: int, kind: int, value: int) -> None:
    """Set a resource limit of another process, never above what it has."""
    hard = resource.prlimit(pid, kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (value, value))


def is_root() -> bool:
    return os.geteuid() == 0
