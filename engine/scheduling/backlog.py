"""Backlog counters: number and payload bytes of invocations that have not ended, by function, project and in total.

The counters enforce the limits of the backlog. The journal stores the same sums on disk. The counters in memory are
used for admission, so that it need not wait for the disk. A guard refuses new work while disk space is low.

While there are several projects, each may have half of what the others leave of a limit in total. However many projects
fill their parts, there is room for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from msgspec import Struct

from engine.errors import BacklogFull, DiskLow, SynchronousCallsFull
from engine.isolation.machine import free_space
from engine.model.clock import Clock
from engine.scheduling.projects import Projects

#: Seconds for which a measurement of the free space is used.
LOOK_EVERY = 0.25
#: Calls of running functions may fill the limits and this part more: otherwise a full queue of parents would wait for
#: itself.
KEPT = 1 / 8
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


class _ProjectSums(Struct, eq=False):
    name: str
    rows: int = 0
    size: int = 0


class _FunctionSums(Struct, eq=False):
    project: _ProjectSums
    rows: int = 0
    size: int = 0


class Counters:
    """Number and bytes of invocations, by function, by project and in total."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects
        self._functions: dict[int, _FunctionSums] = {}
        self.by_project: dict[str, _ProjectSums] = {}
        self.rows = self.size = 0
        self.most_rows = 0  #: largest number of rows since ``restart_most``

    def add(self, function_id: int, size: int, rows: int = 1) -> None:
        """Count ``rows`` invocations of a function with ``size`` bytes of payload in total, regardless of the limits.

        Negative numbers subtract.
        """
        own = self._functions.get(function_id)
        if own is None:
            own = self._functions[function_id] = self._sums(function_id)
            self.by_project[own.project.name] = own.project
        project = own.project
        own.rows += rows
        own.size += size
        project.rows += rows
        project.size += size
        self.rows += rows
        self.size += size
        if self.rows > self.most_rows:
            self.most_rows = self.rows
        elif own.rows <= 0:
            del self._functions[function_id]

    def restart_most(self) -> None:
        """Begin anew to look for the largest number of rows."""
        self.most_rows = self.rows

    def _sums(self, function_id: int) -> _FunctionSums:
        name = self._projects.of(function_id)
        return _FunctionSums(self.by_project.get(name) or _ProjectSums(name))

    def exceeded(
        self, function_id: int, rows: int, size: int, name: str, limits: tuple[int, int, int, int], strict: bool
    ) -> tuple[str, int, str] | None:
        """Return whose limit one more batch would exceed, the limit and its unit; None: there is room.

        ``limits`` are rows and bytes of the function, and of all. Unless ``strict``, a batch that is larger than a
        limit is accepted when no other invocation is counted under that limit.
        """
        function_rows, function_size, all_rows, all_size = limits
        own = self._functions.get(function_id) or self._sums(function_id)
        project = own.project
        if (  # far from every limit, also of the project
            own.rows + rows <= function_rows
            and own.size + size <= function_size
            and self.rows + project.rows + 2 * rows <= all_rows
            and self.size + project.size + 2 * size <= all_size
        ):
            return None
        checks = [
            (own.rows, rows, function_rows, name, "invocations"),
            (own.size, size, function_size, name, "bytes"),
            (self.rows, rows, all_rows, "all functions", "invocations"),
            (self.size, size, all_size, "all functions", "bytes"),
        ]
        if self._projects.several:
            left_rows, left_size = all_rows - self.rows + project.rows, all_size - self.size + project.size
            scope = f"project {project.name}"
            checks += [
                (project.rows, rows, (left_rows + 1) // 2, scope, "invocations"),
                (project.size, size, (left_size + 1) // 2, scope, "bytes"),
            ]
        for present, more, limit, scope, unit in checks:
            if present + (more if strict else min(more, limit)) > limit:
                return scope, limit, unit
        return None


class Backlog(Counters):
    """Counters of the backlog. ``check_disk`` is called for new invocations, with the bytes of their payloads.

    ``calls`` counts synchronous calls.
    """

    def __init__(
        self, limits: Limits, check_disk: Callable[[int], None] = lambda size: None, projects: Projects | None = None
    ) -> None:
        super().__init__(projects or Projects())
        self.limits, self.check_disk = limits, check_disk
        self._limits = limits.function_rows, limits.function_size, limits.rows, limits.size
        rows, size, all_rows, all_size = (limit + max(1, int(limit * KEPT)) for limit in self._limits)
        self._kept_limits = rows, size, all_rows, all_size
        self._call_limits = (limits.sync_rows, limits.sync_size) * 2
        self.calls = Counters(self._projects)
        self._waiting: dict[asyncio.Future[None], tuple[int, int, int]] = {}

    def load(self, backlog: dict[int, tuple[int, int]]) -> None:
        """Count what is on disk: number and bytes of invocations by function id.

        Function id 0 has the sums of ended invocations and is skipped.
        """
        for function_id, (rows, size) in backlog.items():
            if function_id and rows:
                self.add(function_id, size, rows)
        self.restart_most()

    @property
    def functions(self) -> Collection[int]:
        """Ids of the functions with waiting or running asynchronous invocations."""
        return self._functions.keys()

    def of(self, function_id: int) -> tuple[int, int]:
        """Return the number of a function's accepted invocations that have not ended, and their bytes."""
        own = self._functions.get(function_id)
        return (own.rows, own.size) if own else (0, 0)

    def admit(self, function_id: int, size: int, name: str, *, kept: bool = False) -> None:
        """Count one invocation with a payload of ``size`` bytes. ``kept``: a running function has queued it.

        Raises BacklogFull, with the function's ``name`` in the message, if a limit would be exceeded, and DiskLow.
        """
        self.check_disk(size)
        self._admit(function_id, size, name, self._kept_limits if kept else self._limits)

    def admit_batch(self, function_id: int, rows: int, size: int, name: str) -> None:
        """Count ``rows`` invocations of one function, with ``size`` bytes of payload in total.

        Raises BacklogFull and counts none of them if a limit would be exceeded. A batch that is larger than a limit is
        accepted when no other invocation is counted under that limit. Raises DiskLow as ``admit``.
        """
        self.check_disk(size)
        if full := self.exceeded(function_id, rows, size, name, self._limits, False):
            raise BacklogFull(*full)
        self.add(function_id, size, rows)

    def admit_first(self, function_id: int, sizes: Sequence[int], name: str) -> tuple[int, BacklogFull | None]:
        """Count as many invocations of a function, with payloads of ``sizes`` bytes, as the limits allow.

        The first that would exceed a limit is refused with all after it, so that the order stays. Return the number of
        those that are counted, and the error of the others. Raises DiskLow as ``admit``.
        """
        rows, size = len(sizes), sum(sizes)
        self.check_disk(size)
        if self.exceeded(function_id, rows, size, name, self._limits, True) is None:
            self.add(function_id, size, rows)
            return rows, None
        for done, row_size in enumerate(sizes):
            try:
                self._admit(function_id, row_size, name, self._limits)
            except BacklogFull as full:
                return done, full
        raise AssertionError("a backlog without room for all has room for each")

    async def wait_for_room(self, function_id: int, rows: int, size: int) -> None:
        """Wait until ``admit_batch`` would accept ``rows`` invocations with ``size`` bytes in total."""
        while self.exceeded(function_id, rows, size, "", self._limits, False):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = (function_id, rows, size)
            try:
                await waiter
            finally:
                self._waiting.pop(waiter, None)

    def remove(self, function_id: int, size: int, *, rows: int = 1) -> None:
        """Subtract ``rows`` invocations with ``size`` bytes of payload in total, which ended or were not stored."""
        self.add(function_id, -size, -rows)
        if self._waiting:
            self._wake()

    def admit_sync(self, function_id: int, size: int) -> None:
        """Count a synchronous call with a payload of ``size`` bytes.

        Raises SynchronousCallsFull if a limit of synchronous calls would be exceeded.
        """
        if full := self.calls.exceeded(function_id, 1, size, "all functions", self._call_limits, True):
            raise SynchronousCallsFull(*full)
        self.calls.add(function_id, size)

    def remove_sync(self, function_id: int, size: int) -> None:
        self.calls.add(function_id, -size, -1)

    # --- inside ---------------------------------------------------------------------------------------------

    def _admit(self, function_id: int, size: int, name: str, limits: tuple[int, int, int, int]) -> None:
        if full := self.exceeded(function_id, 1, size, name, limits, True):
            raise BacklogFull(*full)
        self.add(function_id, size)

    def _wake(self) -> None:
        # Each running source has at most one waiter, so that all of them can be checked.
        for waiter, need in self._waiting.items():
            if not waiter.done() and not self.exceeded(*need, "", self._limits, False):
                waiter.set_result(None)
