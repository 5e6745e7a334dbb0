"""Static placement: by free processors and memory of the agents that have joined, and of this machine.

Among the nodes with room, the one with the largest free share of memory is chosen. If there is none, the wishes wait in
their order; each gets the first capacity that it fits into, so that a large instance may wait for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Literal

from engine.executors.nodes.placement import Grant, Place, Shape

_CPU_ERROR = 1e-6  #: of sums of shares


class Used:
    """Sums of the grants at one place."""

    def __init__(self) -> None:
        self.cpus, self.memory = 0.0, 0  #: processors, MiB


class StaticPlacement:
    """Placement on the places that have joined (protocol ``Placement``)."""

    def __init__(self, local: Literal["first", "fallback", "never"]) -> None:
        self._local = local
        self._places: dict[Place, None] = {}
        self._used: dict[Place, Used] = {}  #: also of places that have left, while grants are held
        self._waiting: dict[asyncio.Future[Grant], tuple[Shape, Collection[Place]]] = {}

    async def grant(self, shape: Shape, avoid: Collection[Place]) -> Grant:
        granted = self._try(shape, avoid)
        if granted is not None:
            return granted
        waiter: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = shape, avoid
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            raise
        finally:
            self._waiting.pop(waiter, None)

    def release(self, grant: Grant) -> None:
        used = self._used[grant.place]
        used.cpus -= grant.shape.cpus
        used.memory -= grant.shape.memory
        if not used.memory:
            del self._used[grant.place]
        self._serve()

    def join(self, place: Place) -> None:
        self._places[place] = None
        self._serve()

    def leave(self, place: Place) -> None:
        self._places.pop(place, None)

    def fits(self, shape: Shape, avoid: Collection[Place] = ()) -> bool:
        return any(place not in avoid and self.suits(place, shape) for place in self._places)

    def suits(self, place: Place, shape: Shape) -> bool:
        """Return whether a place could hold an instance if the place were empty."""
        if not place.name and self._local == "never":
            return False
        enough = shape.memory <= place.memory and shape.cpus <= place.cpus + _CPU_ERROR
        return enough and shape.family not in place.lacks and shape.labels.issubset(place.labels)

    def used(self, place: Place) -> Used:
        """Return the capacity of a place that grants hold."""
        return self._used.get(place) or Used()

    def _serve(self) -> None:
        for waiter, (shape, avoid) in list(self._waiting.items()):
            if not waiter.done() and (granted := self._try(shape, avoid)) is not None:
                waiter.set_result(granted)

    def _try(self, shape: Shape, avoid: Collection[Place]) -> Grant | None:
        best, most = None, -1.0
        for place in self._places:
            used = self.used(place)
            free = place.memory - used.memory
            if free < shape.memory or place.cpus + _CPU_ERROR < used.cpus + shape.cpus:
                continue
            share = free / place.memory if place.name else 2.0 if self._local == "first" else 0.0
            if share > most and place not in avoid and self.suits(place, shape):
                best, most = place, share
        if best is None:
            return None
        used = self._used.setdefault(best, Used())
        used.cpus += shape.cpus
        used.memory += shape.memory
        return Grant(shape, best)
