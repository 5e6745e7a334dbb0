"""Reserved instances: instances of a version that are kept running without work, with the user's code loaded.

    PUT count ──▶ stored ──▶ passed to the pool ──▶ started ──▶ one exits ──▶ another is started

An alias reserves instances of its main version. Schedules (``tactics_config``) may change the number over time; a
single timer waits for the next change.

    base count ──▶ a cron fires ──▶ its count ──▶ another cron fires, or this one expires ──▶ ...

A cron is a time expression with a count. The cron that fired last determines the number; if several fired at the same
time, the largest count applies. Crons are in UTC unless they name a zone, as in FunctionGraph. A cron without
``start_time`` starts when it is stored, so that a yearly cron does not apply last year's firing at once. Schedules by
load (``metric_configs``) are stored without effect, as on a FunctionGraph account without that feature.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Meta, Struct, field

from engine.errors import InvalidField, NotFound, TooManyReserved, Unavailable
from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.model import Function
from engine.model.clock import Clock
from engine.model.cron import read_cron
from engine.model.urn import LATEST, FunctionUrn
from engine.resources.repository import Repository, function_owner, owning_function

Count = Annotated[int, Meta(ge=0, le=1_000)]
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799)]  #: seconds since the epoch; 0: not set
Name = Annotated[str, Meta(max_length=64)]

log = structlog.get_logger("functiond.reservations")

PAUSE = 1.0  #: seconds before a lost instance is replaced, so that instances that crash at once do not load the machine
RETRY = 30.0  #: seconds before a failed start is tried again
_CONCURRENCY = 8  #: functions whose instances are started at the same time


class CronConfig(Struct, frozen=True, kw_only=True):
    name: Name = ""
    cron: Annotated[str, Meta(max_length=255)] = ""
    count: Count = 0
    start_time: Moment = 0
    expired_time: Moment = 0


class MetricConfig(Struct, frozen=True, kw_only=True):
    name: Name = ""
    type: Literal["Concurrency"] = "Concurrency"
    threshold: int = 0
    min: int = 0


class Tactics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Schedules of a reservation (FunctionGraph's ``tactics_config``).

    Without schedules, the value is encoded as an empty object, because Terraform compares the reply with its request.
    """

    cron_configs: Annotated[list[CronConfig], Meta(max_length=10)] = []
    metric_configs: Annotated[list[MetricConfig], Meta(max_length=10)] = []


class ScheduledCount(Struct, frozen=True, kw_only=True):
    """Number of reserved instances that a schedule sets for a period."""

    count: int
    begin: float  #: seconds since the epoch, inclusive
    end: float  #: seconds since the epoch, exclusive; infinite: no change is scheduled

    def covers(self, now: float) -> bool:
        return self.begin <= now < self.end


class Reservation(Struct, frozen=True, kw_only=True):
    """Reservation of one version or alias; stored under the version's name, or the alias's name after ``!``.

    ``idle_mode`` is stored without effect. FunctionGraph charges less for idle instances in this mode; in this engine
    they only take memory.
    """

    count: int
    idle_mode: bool = False
    tactics: Tactics = Tactics()
    since: tuple[float, ...] = ()  #: for each cron, the time at which it was stored
    #: ``created_key`` of the published version, so that a later version of the same name does not inherit the
    #: reservation; 0: any version.
    created_key: int = field(default=0, name="born")  #: stored as ``born``

    @property
    def largest(self) -> int:
        """Largest number of instances that the schedule can set."""
        return max(self.count, *(config.count for config in self.tactics.cron_configs), 0)

    def put_at(self, now: float, old: Reservation | None) -> Reservation:
        """Return the reservation with the time at which each cron is stored: ``now``.

        Crons that the replaced reservation ``old`` also has keep their earlier time.
        """
        stored = list(zip(old.tactics.cron_configs, old.since, strict=False)) if old else []
        since = tuple(
            next((since for other, since in stored if other == config), now) for config in self.tactics.cron_configs
        )
        return msgspec.structs.replace(self, since=since)

    def scheduled_at(self, now: float) -> ScheduledCount:
        """Return the number of instances at the time ``now``, and the time until which it is valid.

        The calculation takes about a millisecond per cron.
        """
        fired, end = [], math.inf
        for config, since in zip(self.tactics.cron_configs, self.since, strict=False):
            last, change = _times(config, config.start_time or since, now)
            end = min(end, change)
            if last is not None:
                fired.append((last, config.count))
        return ScheduledCount(count=max(fired)[1] if fired else self.count, begin=now, end=end)


def _times(config: CronConfig, begin: float, now: float) -> tuple[float | None, float]:
    """Return the last time at which the cron fired, and the next time at which it fires or expires.

    The last time is None if the cron has not fired since ``begin``, has expired, or is invalid. The next time is
    infinite if there is none.
    """
    expires = config.expired_time or math.inf
    if expires <= now:
        return None, math.inf
    try:
        cron = read_cron(config.cron)
    except InvalidField:  # the cron may name a time zone that was available on another machine only
        return None, math.inf
    # Subtract one second so that a firing in the very second of ``start_time`` counts.
    return cron.last_until(now, begin), min(cron.next_after(max(now, config.start_time - 1)), expires)


def check_tactics(tactics: Tactics) -> None:
    """Raise InvalidField if a cron is invalid, or has an expiry time that is not after its start time."""
    for number, config in enumerate(tactics.cron_configs):
        name = f"tactics_config.cron_configs[{number}]"
        try:
            read_cron(config.cron)
        except InvalidField as problem:
            raise InvalidField(f"{name}.cron", config.cron, problem.allowed) from None
        if config.expired_time and config.expired_time <= config.start_time:
            raise InvalidField(f"{name}.expired_time", config.expired_time, "must be after start_time")


class Reserved(Struct, frozen=True, kw_only=True):
    """Reservation with its function and the number of instances that its schedule sets now."""

    function: Function
    qualifier: str
    reservation: Reservation
    count: int  #: current number of instances


class Reservations:
    """Reservations of all functions, and the service that keeps reserved instances running.

    ``memory`` is the limit in MB for all instances of the engine; 0: no limit. Reservations may take half of the limit.
    """

    def __init__(
        self,
        repository: Repository[Reservation],
        catalog: Catalog,
        clock: Clock,
        instances: Pool,
        *,
        memory: int,
    ) -> None:
        self._repository, self._catalog, self._clock = repository, catalog, clock
        self._instances, self._memory = instances, memory
        self._wake, self._requested = anyio.Event(), False
        #: Current counts by owner and qualifier.
        self._scheduled: dict[tuple[str, str], tuple[Reservation, ScheduledCount]] = {}

    def find(self, project: str, urn: FunctionUrn | None = None) -> Sequence[Reserved]:
        """Return the reservations of a project, or only those of the function, version or alias that the URN names."""
        only = self._catalog.find(urn) if urn is not None else None
        return [
            reserved
            for reserved in self._all()
            if reserved.function.project == project
            and (only is None or reserved.function.function_id == only.function_id)
            and (urn is None or not urn.qualified or reserved.qualifier == urn.qualifier)
        ]

    def count(self, function_id: int) -> int:
        """Return the number of instances that are reserved for a function now, for all its versions together."""
        return sum(reserved.count for reserved in self._all() if reserved.function.function_id == function_id)

    async def put(self, urn: FunctionUrn, reservation: Reservation) -> Reservation:
        """Replace the reservation of a version or alias, or delete it if its schedule never sets more than 0 instances.

        Raises InvalidField if the schedule is invalid; TooManyReserved if the count exceeds a limit of the function,
        the project or the memory.
        """
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
        self.wake()
        return reservation

    def wake(self) -> None:
        """Compare reservations with running instances again, after a change of functions, aliases or reservations."""
        self._requested = True
        self._wake.set()

    def replace_lost(self) -> None:
        """Start another instance in place of a reserved one that has ended, after a pause."""
        self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            self._wake, self._requested = anyio.Event(), False
            await self._drop_orphans()
            self._instances.reserve.want(self._wanted())
            complete = await self._start_missing()
            if not complete and not self._requested:
                self._wake = anyio.Event()  # the exit of an instance that failed to start must not cause a retry
            change = min((scheduled.end for _, scheduled in self._scheduled.values()), default=math.inf)
            alarm = self._clock.call_at(change, self.wake) if change < math.inf else None
            try:
                with anyio.move_on_after(math.inf if complete else RETRY) as max_wait:
                    await self._wake.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()
            if not self._requested and not max_wait.cancelled_caught:
                await anyio.sleep(PAUSE)

    async def _start_missing(self) -> bool:
        """Start the reserved instances that are not running, of each function one by one. Return False if any failed.

        Functions do not wait for each other, because a start may wait for the transfer of a package to a node.
        """
        missing: dict[tuple[int, int], list[Function]] = {}
        for function in self._instances.reserve.shortage():
            missing.setdefault((function.function_id, function.revision), []).append(function)
        turns = anyio.Semaphore(_CONCURRENCY)

        async def start(functions: list[Function]) -> bool:
            async with turns:
                for function in functions:
                    if not await self._start(function):
                        return False
            return True

        return all(await asyncio.gather(*map(start, missing.values())))

    async def _start(self, function: Function) -> bool:
        name, problem = f"{function.project}/{function.name}", None
        try:
            if await self._instances.warm(function):
                return True
        except Exception as error:  # a bug, which must not end the starts of other functions
            problem = error
        nodes = self._instances.nodes
        waits = nodes is not None and any(name in shape.functions for shape in nodes.report().waiting)
        why = {"reason": "it waits for capacity of nodes"} if waits else {"exc_info": problem}
        log.warning("reserved instance did not start", function=name, version=function.version, **why)
        return False

    def _wanted(self) -> list[tuple[Function, int]]:
        """Return each version with its number of reserved instances: the sum for the version itself and its aliases."""
        counts: dict[tuple[int, str], tuple[Function, int]] = {}
        for reserved in self._all():
            key = (reserved.function.function_id, reserved.function.version)
            counts[key] = (reserved.function, counts.get(key, (reserved.function, 0))[1] + reserved.count)
        return list(counts.values())

    def _all(self) -> list[Reserved]:
        reservations, now, before, self._scheduled = [], self._clock.now(), self._scheduled, {}
        for owner, qualifier, reservation in self._repository.all():
            function = self._function(owner, qualifier, reservation)
            if function is not None:
                previous, scheduled = before.get((owner, qualifier), (None, None))
                if scheduled is None or previous is not reservation or not scheduled.covers(now):
                    scheduled = reservation.scheduled_at(now)
                self._scheduled[owner, qualifier] = reservation, scheduled
                reservations.append(
                    Reserved(function=function, qualifier=qualifier, reservation=reservation, count=scheduled.count)
                )
        return reservations

    def _function(self, owner: str, qualifier: str, reservation: Reservation) -> Function | None:
        """Return the version that a reservation is for, or None if the version or the alias no longer exists."""
        latest = self._catalog.resolve(owning_function(owner) or 0, LATEST)
        if latest is None:
            return None
        try:
            function = self._catalog.find(msgspec.structs.replace(latest.urn(""), qualifier=qualifier))
        except NotFound:
            return None
        return function if reservation.created_key in (0, function.created_key) else None

    async def _drop_orphans(self) -> None:
        try:
            async with self._repository.change():
                for owner, id, reservation in list(self._repository.all()):
                    if self._function(owner, id, reservation) is None:
                        await self._repository.delete(owner, id)
        except Unavailable as problem:  # orphans have no effect, and are deleted in a later turn
            log.warning("orphaned reservations not deleted", problem=str(problem))

    def _check(self, function: Function, qualifier: str, count: int) -> None:
        if 0 <= function.max_instances < count:
            raise TooManyReserved(count, f"the function may have {function.max_instances} instances")
        others = [other for other in self._all() if (other.function, other.qualifier) != (function, qualifier)]
        same_project = sum(other.reservation.largest for other in others if other.function.project == function.project)
        if same_project + count > (most := self._catalog.limits.reserved_instances):
            problem = f"a project may reserve {most} (limits.reserved_instances), and has {same_project} elsewhere"
            raise TooManyReserved(count, problem)
        memory = sum(other.reservation.largest * other.function.memory_size for other in others)
        if self._memory and memory + count * function.memory_size > self._memory // 2:
            free = max(0, self._memory // 2 - memory)
            raise TooManyReserved(count, f"reservations may take {free} MB more of the memory for instances")
