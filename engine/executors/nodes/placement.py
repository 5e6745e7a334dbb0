"""Placement of instances: capacity of nodes and of this machine, and the grants of it.

A grant is the capacity for one instance at one place. It is held from before the start of the instance until nothing of
the instance is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from engine.runtimes.catalog import Family


class Shape(NamedTuple):
    """Needs of an instance."""

    memory: int  #: MiB
    cpus: float
    labels: frozenset[str]  #: of its node
    family: Family | None  #: of its runtime; None: not supported


class Place(Protocol):
    """Node that can run instances, or this machine."""

    @property
    def name(self) -> str:
        """Name of the node; empty for this machine."""
        ...

    @property
    def labels(self) -> Collection[str]: ...

    @property
    def lacks(self) -> Mapping[str, str]:
        """Families of runtimes that cannot run there, with the reasons."""
        ...

    @property
    def cpus(self) -> float: ...

    @property
    def memory(self) -> int:
        """MiB for instances."""
        ...


class Grant(Struct, frozen=True, eq=False):
    """Capacity at a place."""

    shape: Shape
    place: Place


class Placement(Protocol):
    """Decision where an instance starts."""

    async def grant(self, shape: Shape, avoid: Collection[Place]) -> Grant:
        """Wait for capacity, but not at the places in ``avoid``."""
        ...

    def release(self, grant: Grant) -> None: ...

    def join(self, place: Place) -> None:
        """Use a place for further grants. Does nothing if it is used already."""
        ...

    def leave(self, place: Place) -> None:
        """Use a place for no further grants. Grants that are held stay valid."""
        ...

    def fits(self, shape: Shape, avoid: Collection[Place] = ()) -> bool:
        """Return whether a place could hold an instance if the place were empty."""
        ...
