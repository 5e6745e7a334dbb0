"""Usage statistics: attempts of each function by minute for one day, and of each project by month for a year.

An attempt counts in the minute in which it ends. Counting an attempt takes a fraction of a microsecond. At most
``MINUTES`` minutes and about ``TALLIES`` counts of one function in one minute are in memory; the oldest minutes are
dropped first. Minutes are lost when the engine exits. The counts of months (``all_months``) are stored by another
module, which passes them to ``restore`` at the next start.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from operator import itemgetter
from typing import Literal

from msgspec import Struct

from engine.model import ENGINE_FAULTS, Function, Invocation, Outcome, State
from engine.model.signal import Signal

MINUTES = 1_440  #: minutes kept
TALLIES = 100_000  #: tallies kept, one for each function in each minute
MONTHS = 12  #: months kept
_MB_PER_GB = 1024


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


class Usage:
    """Counters of attempts by function and project.

    ``project_of`` returns the project of a function id, or None if the function was deleted. ``used()`` announces the
    first count of each function in each minute.
    """

    def __init__(self, project_of: Callable[[int], str | None]) -> None:
        self._project_of = project_of
        self.used: Signal[[]] = Signal()
        self._minutes: deque[tuple[int, dict[int, Tally]]] = deque()
        self._now: dict[int, Tally] = {}
        self._next = 0.0  #: end of the current minute
        self._kept = 0  #: tallies in ``_minutes`` except the current minute
        self._months: dict[tuple[str, str], Tally] = {}

    def note_attempt(self, function: Function, invocation: Invocation, outcome: Outcome) -> None:
        """Count an attempt that has ended, with its duration and its error."""
        tally = self._tally(function.function_id, outcome.ended_at)
        seconds = outcome.ended_at - outcome.started_at
        tally.count += 1
        tally.seconds += seconds
        tally.work += seconds * function.memory_size
        if seconds > tally.longest:
            tally.longest = seconds
        if seconds < tally.shortest:
            tally.shortest = seconds
        if outcome.code:
            if outcome.code in ENGINE_FAULTS:
                tally.system_errors += 1
            else:
                tally.function_errors += 1

    def note_reject(self, function_id: int | None, now: float) -> None:
        """Count a request for a function that was refused because a limit was reached.

        Does nothing if ``function_id`` is None, because the function was deleted.
        """
        if function_id is not None:
            self._tally(function_id, now).rejects += 1

    def note_ends(self, function_id: int, state: State, rows: int, now: float) -> None:
        """Count invocations that ended without an attempt, if they were discarded for their age."""
        if state is State.DISCARD:
            self._tally(function_id, now).expired += rows

    def stretches(self, functions: Collection[int], begin: float, end: float, count: int = 60) -> Sequence[Stretch]:
        """Return the added counts of ``functions`` in up to ``count`` periods of equal length, in whole minutes.

        The first period contains ``begin``, and the last one contains ``end``.
        """
        first, last = int(begin // 60), int(end // 60)
        size = max(1, -(-(last - first + 1) // count))
        sums: dict[int, Tally] = {}
        for minute, tallies in self._minutes:
            if first <= minute <= last:
                _add_all(sums, (minute - first) // size, tallies, functions)
        return [
            Stretch(begin=(first + number * size) * 60.0, minutes=size, tally=sums.get(number))
            for number in range(-(-(last - first + 1) // size))
        ]

    def totals(self, begin: float, end: float) -> Mapping[int, Tally]:
        """Return the counts by function id for the minutes from ``begin`` to ``end``, both included.

        Functions that were not used in these minutes are left out.
        """
        first, last = int(begin // 60), int(end // 60)
        found: dict[int, Tally] = {}
        for minute, tallies in self._minutes:
            if first <= minute <= last:
                for function_id, tally in tallies.items():
                    found.setdefault(function_id, Tally()).add(tally)
        return found

    def sums(self, measure: Literal["errors", "expired"], begin: float = 0.0) -> Mapping[int, int]:
        """Return the sum of a measure by function id over the minutes in memory from ``begin``.

        Functions whose sum is 0 are left out.
        """
        first, found = int(begin // 60), Counter[int]()
        for minute, tallies in self._minutes:
            for function_id, tally in tallies.items() if minute >= first else ():
                if value := getattr(tally, measure):
                    found[function_id] += value
        return found

    def months(self, project: str) -> Sequence[Month]:
        """Return the usage of a project by month, oldest month first."""
        return [
            Month(date=date, count=tally.count, gb_seconds=round(tally.work / _MB_PER_GB, 3))
            for (owner, date), tally in sorted(self.all_months().items(), key=itemgetter(0))
            if owner == project
        ]

    def all_months(self) -> dict[tuple[str, str], Tally]:
        """Return the counts of each month, by project and date (``2026-01``), including the current minute."""
        sums = {key: copy(tally) for key, tally in self._months.items()}
        minute, tallies = self._minutes[-1] if self._minutes else (0, {})
        for function_id, tally in tallies.items():
            project = self._project_of(function_id)
            if project is not None:
                sums.setdefault((project, _month(minute)), Tally()).add(tally)
        return sums

    def restore(self, months: Mapping[tuple[str, str], Tally]) -> None:
        """Set the counts of months that ``all_months`` returned in earlier runs of the engine.

        Call this once, before the first attempt is counted.
        """
        self._months = dict(months)

    def _tally(self, function_id: int, moment: float) -> Tally:
        if moment >= self._next:
            self._begin_minute(moment)
        tally = self._now.get(function_id)
        if tally is None:
            tally = self._now[function_id] = Tally()
            self.used()
        return tally

    def _begin_minute(self, moment: float) -> None:
        """Begin a new minute: add the previous minute to its month, and drop minutes that are too old."""
        if self._minutes:
            self._keep_months()
            self._kept += len(self._now)
        minute = int(moment // 60)
        self._next, self._now = (minute + 1) * 60.0, {}
        self._minutes.append((minute, self._now))
        while self._minutes[0][0] <= minute - MINUTES or (self._kept > TALLIES and len(self._minutes) > 1):
            self._kept -= len(self._minutes.popleft()[1])

    def _keep_months(self) -> None:
        months = self.all_months()
        dates = sorted({date for _, date in months})[-MONTHS:]
        self._months = {key: tally for key, tally in months.items() if key[1] in dates}


def _month(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m")


def _add_all(sums: dict[int, Tally], number: int, tallies: dict[int, Tally], functions: Collection[int]) -> None:
    for function_id in functions:
        tally = tallies.get(function_id)
        if tally is not None:
            sums.setdefault(number, Tally()).add(tally)
