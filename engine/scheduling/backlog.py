"""Backlog counters: number and payload bytes of invocations that have not ended, by function and in total.

The counters enforce the limits of the backlog. The journal stores the same sums on disk. The counters in memory are
used for admission, so that it need not wait for the disk. A guard refuses new work while disk space is low.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from msgspec import Struct

from engine.errors import BacklogFull, DiskLow, SynchronousCallsFull
from engine.isolation.machine import free_space
from engine.model.clock import Clock

#: Seconds for which a measurement of the free space is used.
LOOK_EVERY = 0.25
#: Bytes counted for each request in addition to its payload, because whole pages are written, and twice.
ROW = 1 << 16


class Limits(Struct, frozen=True, kw_only=True):
    """Limits of the backlog: of all functions together, of each function, and of synchronous calls.

    Rows are numbers of invocations. Sizes are bytes of payload.
    """

    rows: int
    size: int
    function_rows: int
    function_size: int
    sync_rows: int
    sync_size: int


class DiskGuard:
    """Check of the free disk space. While fewer than ``needed`` bytes are free, new work is refused.

    Outcomes of accepted invocations can be stored in the rest. ``on_low`` is called after each measurement that finds
    fewer. Between two measurements, accepted bytes are subtracted from the free space, so that a burst of requests is
    noticed too.
    """

    def __init__(self, path: Path, needed: int, clock: Clock, on_low: Callable[[], None] = lambda: None) -> None:
        self._path, self._needed, self._clock, self._on_low = path, needed, clock, on_low
        self._measured_at = float("-inf")
        self._free = needed

    def check(self, size: int = 0) -> None:
        """Subtract ``size`` bytes of payload from the free space. Raise DiskLow if fewer than ``needed`` are left.

        Before DiskLow is raised, and if the last measurement is too old, the free space is measured again. The payload
        is not subtracted from a new measurement.
        """
        now = self._clock.now()
        self._free -= size + ROW
        if self._free < self._needed or not 0 <= now - self._measured_at < LOOK_EVERY:
            self._measure(now)
        if self._free < self._needed:
            raise DiskLow(self._free, self._needed)

    def _measure(self, now: float) -> None:
        self._free, self._measured_at = free_space(self._path), now
        if self._free < self._needed:
            self._on_low()


class Backlog:
    """Counters of the backlog. ``check_disk`` is called for new invocations, with the bytes of their payloads."""

    def __init__(self, limits: Limits, check_disk: Callable[[int], None] = lambda size: None) -> None:
        self.limits, self.check_disk = limits, check_disk
        self._functions: dict[int, tuple[int, int]] = {}
        self.rows = self.size = 0
        self.most_rows = 0  #: largest number of rows since ``restart_most``
        self.sync_rows = self.sync_size = 0
        self._waiting: dict[asyncio.Future[None], tuple[int, int, int]] = {}

    def load(self, backlog: dict[int, tuple[int, int]]) -> None:
        """Set the counters to the sums on disk: number and bytes of invocations by function id.

        Function id 0 has the sums of ended invocations and is skipped.
        """
        self._functions = {f: sums for f, sums in backlog.items() if f and sums[0]}
        self.rows = sum(rows for rows, _ in self._functions.values())
        self.size = sum(size for _, size in self._functions.values())
        self.restart_most()

    @property
    def functions(self) -> Collection[int]:
        """Ids of the functions with waiting or running asynchronous invocations."""
        return self._functions.keys()

    def of(self, function_id: int) -> tuple[int, int]:
        """Return the number of a function's accepted invocations that have not ended, and their bytes."""
        return self._functions.get(function_id, (0, 0))

    def admit(self, function_id: int, size: int, name: str) -> None:
        """Count one invocation with a payload of ``size`` bytes.

        Raises BacklogFull, with the function's ``name`` in the message, if a limit would be exceeded, and DiskLow.
        """
        self.check_disk(size)
        self._admit(function_id, size, name)

    def admit_batch(self, function_id: int, rows: int, size: int, name: str) -> None:
        """Count ``rows`` invocations of one function, with ``size`` bytes of payload in total.

        Raises BacklogFull and counts none of them if a limit would be exceeded. A batch that is larger than a limit is
        accepted when no other invocation is counted under that limit. Raises DiskLow as ``admit``.
        """
        self.check_disk(size)
        if full := self._full(function_id, rows, size, name):
            raise full
        self.add(function_id, size, rows)

    def admit_first(self, function_id: int, sizes: Sequence[int], name: str) -> tuple[int, BacklogFull | None]:
        """Count as many invocations of a function, with payloads of ``sizes`` bytes, as the limits allow.

        The first that would exceed a limit is refused with all after it, so that the order stays. Return the number of
        those that are counted, and the error of the others. Raises DiskLow as ``admit``.
        """
        own_rows, own_size = self.of(function_id)
        limits = self.limits
        rows, room = len(sizes), min(limits.function_size - own_size, limits.size - self.size)
        size = sum(sizes)
        self.check_disk(size)
        if min(limits.function_rows - own_rows, limits.rows - self.rows) >= rows and room >= size:
            self.add(function_id, size, rows)
            return rows, None
        for done, row_size in enumerate(sizes):
            try:
                self._admit(function_id, row_size, name)
            except BacklogFull as full:
                return done, full
        raise AssertionError("a backlog without room for all has room for each")

    async def wait_for_room(self, function_id: int, rows: int, size: int) -> None:
        """Wait until ``admit_batch`` would accept ``rows`` invocations with ``size`` bytes in total."""
        while self._full(function_id, rows, size):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = (function_id, rows, size)
            try:
                await waiter
            finally:
                self._waiting.pop(waiter, None)

    def add(self, function_id: int, size: int, rows: int = 1) -> None:
        """Count ``rows`` invocations of a function, regardless of the limits.

        ``size`` is the total of their payloads in bytes.
        """
        own_rows, used = self._functions.get(function_id, (0, 0))
        self._functions[function_id] = (own_rows + rows, used + size)
        self.rows += rows
        self.size += size
        if self.rows > self.most_rows:
            self.most_rows = self.rows

    def restart_most(self) -> None:
        """Begin anew to look for the largest number of rows."""
        self.most_rows = self.rows

    def remove(self, function_id: int, size: int, *, rows: int = 1) -> None:
        """Subtract ``rows`` invocations with ``size`` bytes of payload in total, which ended or were not stored."""
        held, used = self._functions.get(function_id, (rows, size))
        if held > rows:
            self._functions[function_id] = (held - rows, used - size)
        else:
            self._functions.pop(function_id, None)
        self.rows -= rows
        self.size -= size
        if self._waiting:
            self._wake()

    def admit_sync(self, size: int) -> None:
        """Count a synchronous call with a payload of ``size`` bytes.

        Raises SynchronousCallsFull if the limit of synchronous calls would be exceeded.
        """
        if self.sync_rows >= self.limits.sync_rows:
            raise SynchronousCallsFull(self.limits.sync_rows, "calls")
        if self.sync_size + size > self.limits.sync_size:
            raise SynchronousCallsFull(self.limits.sync_size, "bytes")
        self.sync_rows += 1
        self.sync_size += size

    def remove_sync(self, size: int) -> None:
        self.sync_rows -= 1
        self.sync_size -= size

    # --- inside ---------------------------------------------------------------------------------------------

    def _admit(self, function_id: int, size: int, name: str) -> None:
        limits = self.limits
        rows, used = self._functions.get(function_id, (0, 0))
        if rows >= limits.function_rows:
            raise BacklogFull(name, limits.function_rows, "invocations")
        if used + size > limits.function_size:
            raise BacklogFull(name, limits.function_size, "bytes")
        if self.rows >= limits.rows:
            raise BacklogFull("all functions", limits.rows, "invocations")
        if self.size + size > limits.size:
            raise BacklogFull("all functions", limits.size, "bytes")
        self.add(function_id, size)

    def _full(self, function_id: int, rows: int, size: int, name: str = "") -> BacklogFull | None:
        """Return an error if the batch would exceed a limit, otherwise None.

        A batch that is larger than a limit is accepted when no other invocation is counted under that limit.
        """
        limits = self.limits
        own_rows, own_size = self.of(function_id)
        for present, more, limit, scope, unit in (
            (own_rows, rows, limits.function_rows, name, "invocations"),
            (own_size, size, limits.function_size, name, "bytes"),
            (self.rows, rows, limits.rows, "all functions", "invocations"),
            (self.size, size, limits.size, "all functions", "bytes"),
        ):
            if present + min(more, limit) > limit:
                return BacklogFull(scope, limit, unit)
        return None

    def _wake(self) -> None:
        # Each running source has at most one waiter, so that all of them can be checked.
        for waiter, need in self._waiting.items():
            if not waiter.done() and not self._full(*need):
                waiter.set_result(None)
