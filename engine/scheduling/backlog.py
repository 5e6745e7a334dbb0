"""How much has been promised: rows and bytes, by function and in all, held against their limits.

The journal keeps the same sums on disk; these are for admission, which must not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from msgspec import Struct

from engine.errors import BacklogFull, SynchronousCallsFull


class Limits(Struct, frozen=True, kw_only=True):
    rows: int
    size: int  #: bytes of payload
    function_rows: int
    function_size: int
    sync_rows: int
    sync_size: int


class Backlog:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._functions: dict[int, tuple[int, int]] = {}
        self.rows = self.size = 0
        self.sync_rows = self.sync_size = 0
        self._waiting: dict[asyncio.Future[None], tuple[int, int, int]] = {}

    def load(self, backlog: dict[int, tuple[int, int]]) -> None:
        """Begin with what was found on disk. Function 0 stands for what has ended."""
        self._functions = {f: sums for f, sums in backlog.items() if f and sums[0]}
        self.rows = sum(rows for rows, _ in self._functions.values())
        self.size = sum(size for _, size in self._functions.values())

    @property
    def functions(self) -> Collection[int]:
        """Those that have something waiting or running."""
        return self._functions.keys()

    def of(self, function_id: int) -> tuple[int, int]:
        return self._functions.get(function_id, (0, 0))

    def admit(self, function_id: int, size: int, name: str) -> None:
        """Count one more. Raises BacklogFull."""
        limits = self._limits
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

    def admit_batch(self, function_id: int, rows: int, size: int, name: str) -> None:
        """Count several more, or none. Raises BacklogFull."""
        if full := self._full(function_id, rows, size, name):
            raise full
        self.add(function_id, size, rows)

    async def wait_for_room(self, function_id: int, rows: int, size: int) -> None:
        """Return once ``admit_batch`` would take these."""
        while self._full(function_id, rows, size):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = (function_id, rows, size)
            try:
                await waiter
            finally:
                self._waiting.pop(waiter, None)

    def add(self, function_id: int, size: int, rows: int = 1) -> None:
        """Count what is there already, whatever the limits."""
        own_rows, used = self._functions.get(function_id, (0, 0))
        self._functions[function_id] = (own_rows + rows, used + size)
        self.rows += rows
        self.size += size

    def remove(self, function_id: int, size: int, *, rows: int = 1) -> None:
        """``rows`` that have ended, of ``size`` bytes together."""
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
        """Count one more synchronous call. Raises SynchronousCallsFull."""
        if self.sync_rows >= self._limits.sync_rows:
            raise SynchronousCallsFull(self._limits.sync_rows, "calls")
        if self.sync_size + size > self._limits.sync_size:
            raise SynchronousCallsFull(self._limits.sync_size, "bytes")
        self.sync_rows += 1
        self.sync_size += size

    def remove_sync(self, size: int) -> None:
        self.sync_rows -= 1
        self.sync_size -= size

    # --- inside ---------------------------------------------------------------------------------------------

    def _full(self, function_id: int, rows: int, size: int, name: str = "") -> BacklogFull | None:
        """What keeps a batch out. One that is larger than a limit goes in when nothing else is there."""
        limits = self._limits
        own_rows, own_size = self.of(function_id)
        for there, more, limit, scope, unit in (
            (own_rows, rows, limits.function_rows, name, "invocations"),
            (own_size, size, limits.function_size, name, "bytes"),
            (self.rows, rows, limits.rows, "all functions", "invocations"),
            (self.size, size, limits.size, "all functions", "bytes"),
        ):
            if there + min(more, limit) > limit:
                return BacklogFull(scope, limit, unit)
        return None

    def _wake(self) -> None:
        """Those who wait are as many as there are sources: few enough to be asked one by one."""
        for waiter, need in self._waiting.items():
            if not waiter.done() and not self._full(*need):
                waiter.set_result(None)
