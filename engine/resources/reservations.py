"""Reserved instances: so many instances of a version are alive at any time, with the user's code loaded.

    PUT count ──▶ stored ──▶ the pool wants so many ──▶ started one after another ──▶ one ends ──▶ another is started

An alias reserves instances of its main version. How many are wanted may change with time, as the tactics say: one
timer stands for the next change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import NotFound, TooManyReserved, Unavailable
from engine.executors.reserve import Reserve
from engine.functions.catalog import Catalog
from engine.model import Function
from engine.model.clock import Clock
from engine.model.urn import LATEST, FunctionUrn
from engine.resources.repository import Repository, function_owner, owning_function
from engine.resources.reservation_schedule import Held, Reservation, check_tactics

log = structlog.get_logger("functiond.reservations")

MAX_PER_PROJECT = 90
PAUSE = 1.0  #: seconds before a lost instance is replaced: one that dies at once must not keep the machine busy
RETRY = 30.0  #: seconds after which one that could not be started is tried again
MAX_TIMER = 3600.0  #: the clock may be set: a far change is looked at again after this many seconds


class Reserved(Struct, frozen=True, kw_only=True):
    """A reservation with what it is for."""

    function: Function
    qualifier: str
    reservation: Reservation
    count: int  #: at present


class Warmer(Protocol):
    """Whoever has the instances."""

    reserve: Reserve

    async def warm(self, function: Function) -> bool:
        """Start one that waits for work; False if it cannot be made ready."""
        ...


class NoWarmer:
    """Where there are no instances."""

    def __init__(self) -> None:
        self.reserve = Reserve(())

    async def warm(self, function: Function) -> bool:
        return False


class Reservations:
    """``memory`` is MB for all instances of the engine, 0 for no bound; reservations may have half of it."""

    def __init__(
        self, repository: Repository[Reservation], catalog: Catalog, clock: Clock, warmer: Warmer, *, memory: int
    ) -> None:
        self._repository, self._catalog, self._clock = repository, catalog, clock
        self._warmer, self._memory = warmer, memory
        self._wake, self._asked = anyio.Event(), False
        self._held: dict[tuple[str, str], tuple[Reservation, Held]] = {}  #: by owner and qualifier

    def find(self, project: str, urn: FunctionUrn | None = None) -> Sequence[Reserved]:
        """Of a project, or of one function (of one version, if the URN names one)."""
        only = self._catalog.find(urn) if urn is not None else None
        return [
            one
            for one in self._all()
            if one.function.project == project
            and (only is None or one.function.function_id == only.function_id)
            and (urn is None or not urn.qualified or one.qualifier == urn.qualifier)
        ]

    def count(self, function_id: int) -> int:
        """How many of them there shall be now."""
        return sum(one.count for one in self._all() if one.function.function_id == function_id)

    async def put(self, urn: FunctionUrn, reservation: Reservation) -> Reservation:
        """Replace it; if it can never be more than 0, there is none any more. Raises InvalidField, TooManyReserved."""
        check_tactics(reservation.tactics)
        async with self._repository.change():
            function = self._catalog.find(urn)
            self._check(function, urn.qualifier, reservation.largest)
            owner = function_owner(function)
            old = self._repository.of(owner).get(urn.qualifier)
            if reservation.largest:
                created_key = function.created_key if urn.alias is None else 0
                wanted = msgspec.structs.replace(reservation.put_at(self._clock.now(), old), created_key=created_key)
                await self._repository.put(owner, urn.qualifier, wanted)
            elif old is not None:
                await self._repository.delete(owner, urn.qualifier)
        self.look()
        return reservation

    def look(self) -> None:
        """Something has changed: see to it that as many are alive as shall be."""
        self._asked = True
        self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        self._warmer.reserve.on_loss = lambda: self._wake.set()
        task_status.started()
        while True:
            self._wake, self._asked = anyio.Event(), False
            await self._drop_orphans()
            self._warmer.reserve.want(self._wanted())
            complete = await self._fill()
            if not complete and not self._asked:
                self._wake = anyio.Event()  # what would not start has ended, too: that is no news
            with anyio.move_on_after(min(self._next_change(), math.inf if complete else RETRY)) as max_wait:
                await self._wake.wait()
            if not self._asked and not max_wait.cancelled_caught:
                await anyio.sleep(PAUSE)

    def _next_change(self) -> float:
        """Seconds until another number is wanted."""
        end = min((held.end for _, held in self._held.values()), default=math.inf)
        return math.inf if end == math.inf else min(end - self._clock.now(), MAX_TIMER)

    async def _fill(self) -> bool:
        """Start what is missing; False if something would not start."""
        failed: set[tuple[int, int]] = set()
        for function in list(self._warmer.reserve.shortage()):
            kind = (function.function_id, function.revision)
            if kind not in failed and not await self._warmer.warm(function):
                log.warning("a reserved instance did not start", function=function.name, version=function.version)
                failed.add(kind)
        return not failed

    def _wanted(self) -> list[tuple[Function, int]]:
        """Two names for one version add up."""
        counts: dict[tuple[int, str], tuple[Function, int]] = {}
        for one in self._all():
            key = (one.function.function_id, one.function.version)
            counts[key] = (one.function, counts.get(key, (one.function, 0))[1] + one.count)
        return list(counts.values())

    def _all(self) -> list[Reserved]:
        found, now, before, self._held = [], self._clock.now(), self._held, {}
        for owner, qualifier, one in self._repository.all():
            function = self._function(owner, qualifier, one)
            if function is not None:
                known, held = before.get((owner, qualifier), (None, None))
                if held is None or known is not one or not held.covers(now):
                    held = one.held_at(now)
                self._held[owner, qualifier] = one, held
                found.append(Reserved(function=function, qualifier=qualifier, reservation=one, count=held.count))
        return found

    def _function(self, owner: str, qualifier: str, reservation: Reservation) -> Function | None:
        """None if the version or alias has gone."""
        latest = self._catalog.resolve(owning_function(owner) or 0, LATEST)
        if latest is None:
            return None
        try:
            found = self._catalog.find(msgspec.structs.replace(latest.urn(""), qualifier=qualifier))
        except NotFound:
            return None
        return found if reservation.created_key in (0, found.created_key) else None

    async def _drop_orphans(self) -> None:
        try:
            async with self._repository.change():
                for owner, id, one in list(self._repository.all()):
                    if self._function(owner, id, one) is None:
                        await self._repository.delete(owner, id)
        except Unavailable as problem:  # they count for nothing; the next look tries again
            log.warning("orphaned reservations not deleted", problem=str(problem))

    def _check(self, function: Function, qualifier: str, count: int) -> None:
        if 0 <= function.max_instances < count:
            raise TooManyReserved(count, f"the function may have {function.max_instances} instances")
        others = [one for one in self._all() if (one.function, one.qualifier) != (function, qualifier)]
        same_project = sum(one.reservation.largest for one in others if one.function.project == function.project)
        if same_project + count > MAX_PER_PROJECT:
            raise TooManyReserved(count, f"a project may reserve {MAX_PER_PROJECT}, and has {same_project} elsewhere")
        memory = sum(one.reservation.largest * one.function.memory_size for one in others)
        if self._memory and memory + count * function.memory_size > self._memory // 2:
            free = max(0, self._memory // 2 - memory)
            raise TooManyReserved(count, f"reservations may take {free} MB more of the memory for instances")
