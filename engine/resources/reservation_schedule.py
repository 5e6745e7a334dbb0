"""Schedule of a reservation: the number of reserved instances at a given time.

    base count ──▶ a cron fires ──▶ its count ──▶ another cron fires, or this one expires ──▶ ...

A cron is a time expression with a count. The cron that fired last determines the number; if several fired at the same
time, the largest count applies. Crons are in UTC unless they name a zone, as in FunctionGraph. A cron without
``start_time`` starts when it is stored, so that a yearly cron does not apply last year's firing at once. Schedules by
load (``metric_configs``) are stored without effect, as on a FunctionGraph account without that feature.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from engine.errors import InvalidField
from engine.model.cron import read_cron

Count = Annotated[int, Meta(ge=0, le=1_000)]
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799)]  #: seconds since the epoch; 0: not set
Name = Annotated[str, Meta(max_length=64)]


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
