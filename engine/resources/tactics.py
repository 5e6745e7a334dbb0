"""How many instances a reservation means at a given time: plain functions of the two.

    base count ──▶ a Cron comes ──▶ its count ──▶ another Cron comes, or this one expires ──▶ ...

Of several Crons the one that came last decides; of those that came together, the largest count. Crons are in UTC
unless they name a zone (spec triggers_runtime, 1.1). One without ``start_time`` counts from when it was put, so that
a yearly one does not act at once for last year. Counts by load (``metric_configs``) are kept and have no effect, as
on an account without that feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engine.cron import read_cron
from engine.errors import InvalidField

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


class Tactics(Struct, frozen=True, kw_only=True):
    cron_configs: Annotated[list[CronConfig], Meta(max_length=10)] = []
    metric_configs: Annotated[list[MetricConfig], Meta(max_length=10)] = []


class Reservation(Struct, frozen=True, kw_only=True):
    """Kept under the version or ``!alias`` that it is for.

    ``idle_mode`` asks for idle instances that cost less; here idle ones cost nothing but memory either way.
    """

    count: int
    idle_mode: bool = False
    tactics: Tactics = Tactics()
    since: tuple[float, ...] = ()  #: when each of the Crons was put

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

    def count_at(self, now: float) -> int:
        came = [(last, config.count) for config, last in self._came(now)]
        return max(came)[1] if came else self.count

    def next_change(self, now: float) -> float:
        """When ``count_at`` may be another; infinite if never."""
        return min((_next_change(config, now) for config in self.tactics.cron_configs), default=math.inf)

    def _came(self, now: float) -> Iterator[tuple[CronConfig, float]]:
        """The Crons that hold now, with when they last came."""
        for config, since in zip(self.tactics.cron_configs, self.since, strict=False):
            if not config.expired_time or now < config.expired_time:
                last = read_cron(config.cron).last_until(now, config.start_time or since)
                if last is not None:
                    yield config, last


def _next_change(config: CronConfig, now: float) -> float:
    expires = config.expired_time or math.inf
    if expires <= now:
        return math.inf
    # One that comes in the very second of its start comes.
    return min(read_cron(config.cron).next_after(max(now, config.start_time - 1)), expires)


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
