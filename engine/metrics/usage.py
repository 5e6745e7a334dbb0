"""Usage by minute for one day: of the whole engine (``Sample``) and of each function (``Tally``); of projects by month.

Events count in the minute in which they are noted. The first event of another minute ends the current one. A minute
without events has no sample, and no timer runs. At most ``MINUTES`` samples are kept, encoded (about 40 bytes each),
and about ``TALLIES`` counts of one function in one minute; the oldest are dropped first. Another module stores samples
and months; the counts of functions are lost when the engine exits. Counting an attempt takes about a microsecond.

If the clock is set back by more than a minute, what is ahead of it is dropped. If it is set far ahead, nothing is
dropped until the clock is trusted, because samples are data that expires (``Clock.expiry``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from operator import itemgetter
from typing import Literal, Protocol

import msgspec

from engine.metrics.function_metrics import StoredEnd
from engine.metrics.histogram import SECONDS
from engine.metrics.samples import RANGES, Month, Period, Sample, Stretch, Tally, together
from engine.model import ENGINE_FAULTS, Code, Function, Invocation, Mode, Outcome, State
from engine.model.clock import Clock
from engine.model.signal import Signal

MINUTES = 1_440  #: minutes kept
MINUTE = 60.0
SLACK = 60.0  #: seconds by which the clock may be set back without an earlier minute beginning again
TALLIES = 100_000  #: tallies kept, one for each function in each minute
MONTHS = 12  #: months kept
_MB_PER_GB = 1024


class Waiting(Protocol):
    """Number of asynchronous invocations that have not ended: now, and the largest one since ``restart_most``."""

    rows: int
    most_rows: int

    def restart_most(self) -> None: ...


class Usage:
    """Counters of the current minute, and the counts of earlier ones.

    ``project_of`` returns the project of a function id, or None if the function was deleted. ``changed()`` announces
    that a minute with events is over.
    """

    def __init__(self, clock: Clock, waiting: Waiting, project_of: Callable[[int], str | None]) -> None:
        self.changed: Signal[[]] = Signal()
        self._now, self._expiry, self._waiting, self._project_of = clock.now, clock.expiry, waiting, project_of
        self._kept: dict[int, bytes] = {}  #: samples by minute since the epoch
        self._sums: dict[int, dict[int, Sample | None]] = {}  #: of ``_kept``, by size and number of complete periods
        self._unsaved: set[int] = set()  #: minutes whose sample, or whose absence, is not stored
        self._tallies: deque[tuple[int, dict[int, Tally]]] = deque(maxlen=MINUTES)  #: of functions, by minute
        self._months: dict[tuple[str, str], Tally] = {}  #: without the current minute
        self._minute: int | None = None
        self._from = self._until = 0.0  #: times that belong to the current minute
        self._sample = Sample()
        self._current: dict[int, Tally] = {}  #: by function id

    # --- counting -------------------------------------------------------------------------------------------

    # The first three are called with each invocation, so they call little.

    def note_accepted(self, invocation: Invocation, rows: int = 1) -> None:
        now = self._now()
        if not self._from <= now < self._until:
            self._begin_minute(now)
        if invocation.mode is Mode.SYNC:
            self._sample.called += rows
        else:
            self._sample.accepted += rows

    def note_attempt(self, function: Function, invocation: Invocation, outcome: Outcome) -> None:
        """Count an attempt that has ended, by its duration, its error, and the time that the invocation waited."""
        now = self._now()
        if not self._from <= now < self._until:
            self._begin_minute(now)
        started_at = outcome.started_at
        self._sample.waits[bisect_left(SECONDS, started_at - invocation.due_at)] += 1
        tally = self._current.get(function.function_id) or self._tally(function.function_id)
        seconds = outcome.ended_at - started_at
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

    def note_end(self, end: StoredEnd) -> None:
        """Count the end of an asynchronous invocation, in the minute of its last attempt."""
        if end.state is State.SUCCESS and self._minute is not None:
            self._sample.succeeded += 1
        else:
            self.note_ends(end.invocation.function_id, end.state, end.outcome.code)

    def note_refused(self, function_id: int | None = None) -> None:
        """Count a refused request. ``function_id`` names the function that has reached a limit, if any has."""
        self._sample_now().refused += 1
        if function_id is not None:
            self._tally(function_id).rejects += 1

    def note_ends(self, function_id: int, state: State, code: int, rows: int = 1) -> None:
        """Count ends of asynchronous invocations of a function that are on disk."""
        sample = self._sample_now()
        if state is State.SUCCESS:
            sample.succeeded += rows
        elif state is State.FAIL:
            sample.failed += rows
        else:
            sample.discarded += rows
        if code == Code.EXPIRED:
            self._tally(function_id).expired += rows

    # --- reading: the engine --------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of asynchronous invocations that have not ended now."""
        return self._waiting.rows

    def periods(self, minutes: int, size: int = 1) -> Sequence[Period]:
        """Return the counts of the last ``minutes`` minutes in periods of ``size`` minutes. The last one is not over.

        Periods begin at multiples of their size.
        """
        current = int(self._now() // MINUTE)
        last = current // size
        first = last - minutes // size + 1
        sums = self._sums_from(first, last, size)
        sums[last] = self._sum(last * size, current)
        if self._minute is not None and first * size <= self._minute <= current:
            number = self._minute // size
            sums[number] = together(sums[number], self._complete())
        before = self._waiting_before(first * size)
        counted = []
        for number in range(first, last + 1):
            sample = sums[number]
            counts = before, sample.most_waiting if sample else None, self.waiting if number == last else None
            most = max((count for count in counts if count is not None), default=None)
            before = sample.waiting if sample else before
            counted.append(Period(begin=number * size * MINUTE, minutes=size, sample=sample, waiting=most))
        return counted

    # --- reading: functions and projects --------------------------------------------------------------------

    def stretches(self, functions: Collection[int], begin: float, end: float, count: int = 60) -> Sequence[Stretch]:
        """Return the added counts of ``functions`` in up to ``count`` periods of equal length, in whole minutes.

        The first period contains ``begin``, and the last one contains ``end``.
        """
        first, last = int(begin // 60), int(end // 60)
        size = max(1, -(-(last - first + 1) // count))
        sums: dict[int, Tally] = {}
        for minute, tallies in self._tallies:
            for function_id in functions if first <= minute <= last else ():
                if (tally := tallies.get(function_id)) is not None:
                    sums.setdefault((minute - first) // size, Tally()).add(tally)
        return [
            Stretch(begin=(first + number * size) * 60.0, minutes=size, tally=sums.get(number))
            for number in range(-(-(last - first + 1) // size))
        ]

    def totals(self, begin: float, end: float) -> Mapping[int, Tally]:
        """Return the counts by function id for the minutes from ``begin`` to ``end``, both included.

        Functions that were not used in these minutes are left out.
        """
        first, last = int(begin // 60), int(end // 60)
        by_function: dict[int, Tally] = {}
        for minute, tallies in self._tallies:
            if first <= minute <= last:
                for function_id, tally in tallies.items():
                    by_function.setdefault(function_id, Tally()).add(tally)
        return by_function

    def sums(self, measure: Literal["errors", "expired"], begin: float = 0.0) -> Mapping[int, int]:
        """Return the sum of a measure by function id over the minutes in memory from ``begin``.

        Functions whose sum is 0 are left out.
        """
        first, counts = int(begin // 60), Counter[int]()
        for minute, tallies in self._tallies:
            for function_id, tally in tallies.items() if minute >= first else ():
                if value := getattr(tally, measure):
                    counts[function_id] += value
        return counts

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
        for function_id, tally in self._current.items():
            project = self._project_of(function_id)
            if project is not None:
                month = datetime.fromtimestamp((self._minute or 0) * MINUTE, UTC).strftime("%Y-%m")
                sums.setdefault((project, month), Tally()).add(tally)
        return sums

    # --- storing --------------------------------------------------------------------------------------------

    def restore(self, stored: Mapping[int, bytes], months: Mapping[tuple[str, str], Tally]) -> None:
        """Keep samples of earlier runs of the engine, by minute, and the counts that ``all_months`` returned in them.

        Samples that cannot be decoded are dropped. Call this once, before the first event.
        """
        self._months = dict(months)
        for minute, body in stored.items():
            if _is_sample(body):
                self._kept[minute] = body
            else:
                self._unsaved.add(minute)

    def end_minute(self) -> None:
        """End the current minute early, so that its sample can be stored. Later events of the minute are added."""
        if self._minute is not None:
            self._keep(self._minute, self._complete())
            months = self.all_months()
            dates = sorted({date for _, date in months})[-MONTHS:]
            self._months = {key: tally for key, tally in months.items() if key[1] in dates}
            self._minute, self._from, self._until, self._current = None, 0.0, 0.0, {}

    def unsaved(self) -> Mapping[int, bytes | None]:
        """Return samples that are not stored by minute, and None for those that must be deleted."""
        return {minute: self._kept.get(minute) for minute in self._unsaved}

    def note_saved(self, saved: Mapping[int, bytes | None]) -> None:
        """Tell that what ``unsaved`` returned is stored. What has changed since stays unsaved."""
        self._unsaved -= {minute for minute, body in saved.items() if self._kept.get(minute) is body}

    # --- inside ---------------------------------------------------------------------------------------------

    def _sample_now(self) -> Sample:
        now = self._now()
        if not self._from <= now < self._until:
            self._begin_minute(now)
        return self._sample

    def _tally(self, function_id: int) -> Tally:
        """Return the tally of a function in the current minute, which ``_sample_now`` has begun."""
        tally = self._current.get(function_id)
        if tally is None:
            tally = self._current[function_id] = Tally()
        return tally

    def _complete(self) -> Sample:
        """Return the sample of the current minute with what waits now."""
        self._sample.waiting, self._sample.most_waiting = self._waiting.rows, self._waiting.most_rows
        return self._sample

    def _begin_minute(self, now: float) -> None:
        ended = self._minute is not None
        self.end_minute()
        self._minute, self._sample = int(now // MINUTE), Sample()
        self._waiting.restart_most()
        self._until = (self._minute + 1) * MINUTE
        self._from = self._until - MINUTE - SLACK
        self._tallies.append((self._minute, self._current))
        self._drop(self._minute)
        if ended:
            self.changed()

    def _keep(self, minute: int, sample: Sample) -> None:
        if earlier := self._kept.get(minute):
            whole = msgspec.msgpack.decode(earlier, type=Sample)
            whole.add(sample)
            sample = whole
        self._kept[minute] = msgspec.msgpack.encode(sample)
        self._note_change(minute)

    def _drop(self, current: int) -> None:
        """Drop what is older than a day, or ahead of the clock, and the oldest if there is too much."""
        tallies = sum(len(counts) for _, counts in self._tallies)
        while tallies > TALLIES and len(self._tallies) > 1:
            tallies -= len(self._tallies.popleft()[1])
        dropped: Iterable[int] = ()
        if not self._expiry.check():
            dropped = [minute for minute in self._kept if not current - MINUTES < minute <= current]
            kept = [entry for entry in self._tallies if current - MINUTES < entry[0] <= current]
            self._tallies = deque(kept, maxlen=MINUTES)
        elif len(self._kept) > MINUTES:
            dropped = sorted(self._kept)[:-MINUTES]
        for minute in dropped:
            del self._kept[minute]
            self._note_change(minute)

    def _note_change(self, minute: int) -> None:
        """Note that the kept sample of a minute is another one than before."""
        self._unsaved.add(minute)
        for size, sums in self._sums.items():
            sums.pop(minute // size, None)

    def _sums_from(self, first: int, last: int, size: int) -> dict[int, Sample | None]:
        """Return the sums of the kept samples of the periods from ``first`` to the one before ``last``, by number.

        The sums stay decoded for the next call.
        """
        before = self._sums.get(size, {})
        self._sums[size] = {
            number: before[number] if number in before else self._sum(number * size, (number + 1) * size - 1)
            for number in range(first, last)
        }
        return dict(self._sums[size])

    def _sum(self, first: int, last: int) -> Sample | None:
        """Return the sum of the kept samples of some minutes; None if there are none."""
        kept = (self._kept[minute] for minute in range(first, last + 1) if minute in self._kept)
        return together(*(msgspec.msgpack.decode(body, type=Sample) for body in kept))

    def _waiting_before(self, minute: int) -> int | None:
        """Return the number of unended invocations at the last event before a minute; None if it is not known."""
        if self._minute is not None and self._minute < minute:
            return self._waiting.rows
        last = max((kept for kept in self._kept if kept < minute), default=None)
        return None if last is None else msgspec.msgpack.decode(self._kept[last], type=Sample).waiting


def _is_sample(body: bytes) -> bool:
    try:
        return len(msgspec.msgpack.decode(body, type=Sample).waits) == RANGES
    except msgspec.MsgspecError:
        return False
