"""Static placement: by free processors and memory of the agents that have joined, and of this machine.

Among the nodes with room, the one with the largest free share of memory is chosen. If there is none, the wishes wait in
their order; each gets the first capacity that it fits into, so that a large instance may wait for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from engine.executors.nodes.placement import CPU_ERROR, Grant, Machine, Shape, Used, suits

_NONE = Used()


class StaticPlacement:
    """Placement on the machines that have joined (protocol ``Placement``)."""

    def __init__(self, *, local_first: bool) -> None:
        """Create a placement. ``local_first`` prefers the machine of the engine, if it has joined, to nodes."""
        self._local_share = 2.0 if local_first else 0.0  #: compared with free shares of memory
        self._machines: dict[Machine, None] = {}
        self._used: dict[Machine, Used] = {}  #: also of machines that have left, while grants are held
        self._waiting: dict[asyncio.Future[Grant], tuple[Shape, Collection[Machine]]] = {}

    async def grant(self, shape: Shape, avoid: Collection[Machine]) -> Grant:
        if (granted := self.take(shape, avoid)) is not None:
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
        used = self._used[grant.machine]
        used.add(grant.shape, -1)
        if not used.instances:
            del self._used[grant.machine]
        self._serve()

    def join(self, machine: Machine) -> None:
        self._machines[machine] = None
        self._serve()

    def leave(self, machine: Machine) -> None:
        self._machines.pop(machine, None)

    def fits(self, shape: Shape, avoid: Collection[Machine] = ()) -> bool:
        return any(machine not in avoid and suits(machine, shape) for machine in self._machines)

    def _serve(self) -> None:
        unfit = set[Shape]()  # thousands of wishes have few shapes
        for waiter, (shape, avoid) in self._waiting.items():
            if waiter.done() or shape in unfit:
                continue
            if (granted := self.take(shape, avoid)) is not None:
                waiter.set_result(granted)
            elif not avoid:
                unfit.add(shape)

    def take(self, shape: Shape, avoid: Collection[Machine]) -> Grant | None:
        """Return a grant, or None if no machine has room."""
        best, most = None, -1.0
        for machine in self._machines:
            used = self._used.get(machine) or _NONE
            free = machine.memory - used.memory
            full = free < shape.memory or machine.cpus + CPU_ERROR < used.cpus + shape.cpus
            if full or used.instances == machine.most:
                continue
            share = free / machine.memory if machine.name else self._local_share
            if share > most and machine not in avoid and suits(machine, shape):
                best, most = machine, share
        if best is None:
            return None
        self._used.setdefault(best, Used()).add(shape, 1)
        return Grant(shape, best)
