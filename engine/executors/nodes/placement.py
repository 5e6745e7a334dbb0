"""Placement of instances: capacity of nodes and of this machine, and the grants of it.

A grant is the capacity for one instance on one machine. It is held from before the start of the instance until nothing
of the instance is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from msgspec import Struct

from engine.runtimes.catalog import Family

CPU_ERROR = 1e-6  #: of sums of processors


class Shape(NamedTuple):
    """Needs of an instance."""

    memory: int  #: MiB
    cpus: float
    labels: frozenset[str]  #: of its node
    family: Family | None  #: of its runtime; None: not supported
    gpus: float = 0.0  #: a share of one GPU


class Machine(Protocol):
    """Node, or the machine of the engine."""

    name: str  #: of the node; empty for this machine
    labels: tuple[str, ...]
    lacks: dict[str, str]  #: families of runtimes that cannot run there, with the reasons
    most: int  #: instances that can run at the same time; -1: no limit
    cpus: float
    memory: int  #: MiB for instances
    gpus: float


def suits(machine: Machine, shape: Shape) -> bool:
    """Return whether a machine could hold an instance if it were empty."""
    enough = shape.memory <= machine.memory and shape.cpus <= machine.cpus + CPU_ERROR and shape.gpus <= machine.gpus
    return enough and shape.family not in machine.lacks and shape.labels.issubset(machine.labels)


class Grant(Struct, frozen=True, eq=False):
    """Capacity for one instance on a machine."""

    shape: Shape
    machine: Machine
    number: int = 0  #: in a cluster that has granted it
    gpus: tuple[str, ...] = ()  #: as in ``CUDA_VISIBLE_DEVICES``


class Used:
    """Sums of grants on one machine."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self.instances, self.cpus, self.memory, self.gpus = 0, 0.0, 0, 0.0  #: number, processors, MiB, GPUs
        for grant in grants:
            self.add(grant.shape, 1)

    def add(self, shape: Shape, count: int) -> None:
        self.instances += count
        self.cpus += count * shape.cpus
        self.memory += count * shape.memory
        self.gpus += count * shape.gpus


class Placement(Protocol):
    """Decision where an instance starts."""

    async def grant(self, shape: Shape, avoid: Collection[Machine]) -> Grant:
        """Wait for capacity, but not on the machines in ``avoid``."""
        ...

    def release(self, grant: Grant) -> None: ...

    def join(self, machine: Machine) -> None:
        """Use a machine for further grants. Does nothing if it is used already."""
        ...

    def leave(self, machine: Machine) -> None:
        """Use a machine for no further grants. Grants that are held stay valid."""
        ...

    def fits(self, shape: Shape, avoid: Collection[Machine] = ()) -> bool:
        """Return whether a machine could hold an instance if it were empty."""
        ...
