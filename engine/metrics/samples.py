"""Counts of one or several minutes: samples of the whole engine, tallies of the attempts of a function or project."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from engine.metrics.histogram import SECONDS, Distribution

RANGES = len(SECONDS) + 1


class Sample(Struct, array_like=True):
    """Counts of one or several minutes. New fields are added at the end, with defaults."""

    accepted: int = 0  #: asynchronous requests
    called: int = 0  #: synchronous calls
    refused: int = 0  #: requests that were not accepted
    succeeded: int = 0  #: asynchronous invocations that ended as SUCCESS
    failed: int = 0  #: as FAIL
    discarded: int = 0  #: as DISCARD
    waiting: int = 0  #: unended asynchronous invocations at the end
    most_waiting: int = 0  #: largest number of them
    waits: list[int] = msgspec.field(default_factory=lambda: [0] * RANGES)  #: attempts, by seconds from due to start

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.discarded

    @property
    def wait_seconds(self) -> Distribution:
        return Distribution(bounds=SECONDS, counts=tuple(self.waits), total=0.0)

    def add(self, later: Sample) -> None:
        self.accepted += later.accepted
        self.called += later.called
        self.refused += later.refused
        self.succeeded += later.succeeded
        self.failed += later.failed
        self.discarded += later.discarded
        self.waiting = later.waiting
        self.most_waiting = max(self.most_waiting, later.most_waiting)
        self.waits = [own + more for own, more in zip(self.waits, later.waits, strict=True)]


class Period(Struct, frozen=True, kw_only=True):
    """Counts of a period of whole minutes. ``waiting`` is the largest number of unended invocations in it."""

    begin: float
    minutes: int
    sample: Sample | None  #: None: no events
    waiting: int | None  #: None: not known


class Tally(Struct, kw_only=True):
    """Counts of attempts of one function or project in one period.

    ``seconds`` is the total duration of all attempts. ``longest`` and ``shortest`` are the durations of one attempt in
    seconds.
    """

    count: int = 0
    function_errors: int = 0
    system_errors: int = 0
    rejects: int = 0
    expired: int = 0  #: invocations discarded for their age
    seconds: float = 0.0
    longest: float = 0.0
    shortest: float = float("inf")
    work: float = 0.0  #: memory size in MiB times seconds

    @property
    def errors(self) -> int:
        return self.function_errors + self.system_errors

    def add(self, other: Tally) -> None:
        self.count += other.count
        self.function_errors += other.function_errors
        self.system_errors += other.system_errors
        self.rejects += other.rejects
        self.expired += other.expired
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.shortest = min(self.shortest, other.shortest)
        self.work += other.work


class Stretch(Struct, frozen=True, kw_only=True):
    """Counts of attempts in a period of whole minutes, which starts at ``begin``."""

    begin: float
    minutes: int
    tally: Tally | None  #: None: no attempts and no rejects


class Month(Struct, frozen=True, kw_only=True):
    date: str  #: ``2026-01``
    count: int
    gb_seconds: float


def together(*samples: Sample | None) -> Sample | None:
    """Return the sum of samples, oldest first, as a new one; None if there are none."""
    known = [sample for sample in samples if sample is not None]
    if not known:
        return None
    total = Sample()
    for sample in known:
        total.add(sample)
    return total
