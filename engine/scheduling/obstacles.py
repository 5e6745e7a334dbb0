"""State of one function in the run queue, from which follows why its next asynchronous invocation does not start."""

from __future__ import annotations

from msgspec import Struct


class Obstacles(Struct, frozen=True, kw_only=True):
    limit: int  #: largest number of concurrent runs; -1: no limit
    running: int  #: runs of the function
    parked: bool  #: waits until the clock is trusted
    next_token: float | None  #: when the rate allows the next start, by the time of the event loop; None: it does now
    slots: int  #: slots for asynchronous work, in total
    slot_free: bool  #: one of them is free
    memory: int  #: MiB that one more run takes
    memory_free: int  #: MiB
    alone: bool  #: an invocation that met crashes of the engine runs alone

    @property
    def full(self) -> bool:
        return self.limit >= 0 and self.running >= self.limit
