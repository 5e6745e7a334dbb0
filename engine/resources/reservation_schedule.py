"""How many instances a reservation means at a given time.

    base count ──▶ a Cron comes ──▶ its count ──▶ another Cron comes, or this one expires ──▶ ...

Of several Crons the one that came last decides; of those that came together, the largest count. Crons are in UTC
unless they name a zone (spec triggers_runtime, 1.1). One without ``start_time`` counts from when it was put, so that
a yearly one does not act at once for last year. Counts by load (``metric_configs``) are kept and have no effect, as
on an account without that feature.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

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
    """None are an empty object, as Terraform compares it with what it was told."""

    cron_configs: Annotated[list[CronConfig], Meta(max_length=10)] = []
    metric_configs: Annotated[list[MetricConfig], Meta(max_length=10)] = []


class Held(Struct, frozen=True, kw_only=True):
    """How many instances, from when to when."""

    count: int
    begin: float
    end: float

    def covers(self, now: float) -> bool:
        return self.begin <= now < self.end


class Reservation(Struct, frozen=True, kw_only=True):
    """Kept under the version or ``!alias`` that it is for.

    ``idle_mode`` asks for idle instances that cost less; here idle ones cost nothing but memory either way.
    """

    count: int
    idle_mode: bool = False
    tactics: Tactics = Tactics()
    since: tuple[float, ...] = ()  #: when each of the Crons was put
    created_key: int = (
        0  #: of the published version that it is for: another one of its name has no part in it; 0: whichever
    )

    @property
    def largest(self) -> int:
        """What it may come to."""
        return max(self.count, *(config.count for config in self.tactics.cron_configs), 0)

    def put_at(self, now: float, old: Reservation | None) -> Reservation:
        """What ``old`` had already stays in force."""
        known = list(zip(old.tactics.cron_configs, old.since, strict=False)) if old else []
        since = tuple(
            next((since for other, since in known if other == config), now) for config in self.tactics.cron_configs
        )
        return msgspec.structs.replace(self, since=since)

    def held_at(self, now: float) -> Held:
        """Takes a millisecond for each Cron."""
        came, end = [], math.inf
        for config, since in zip(self.tactics.cron_configs, self.since, strict=False):
            last, change = _times(config, config.start_time or since, now)
            end = min(end, change)
            if last is not None:
                came.append((last, config.count))
        return Held(count=max(came)[1] if came else self.count, begin=now, end=end)


def _times(config: CronConfig, begin: float, now: float) -> tuple[float | None, float]:
    """When it came last, if that holds now; and when that may change, infinite if never."""
    expires = config.expired_time or math.inf
    if expires <= now:
        return None, math.inf
    try:
        cron = read_cron(config.cron)
    except InvalidField:  # this machine may know fewer time zones than the one on which it was put
        return None, math.inf
    # One that comes in the very second of its start comes.
    return cron.last_until(now, begin), min(cron.next_after(max(now, config.start_time - 1)), expires)


def check_tactics(tactics: Tactics) -> None:
    """Raises InvalidField."""
    for number, config in enumerate(tactics.cron_configs):
        field = f"tactics_config.cron_configs[{number}]"
        try:
            read_cron(config.cron)
        except InvalidField as problem:
            raise InvalidField(f"{field}.cron", config.cron, problem.allowed) from None
        if config.expired_time and config.expired_time <= config.start_time:
            raise InvalidField(f"{field}.expired_time", config.expired_time, "must be after start_time")
