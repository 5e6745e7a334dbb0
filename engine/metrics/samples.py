"""Samples of the whole engine by minute, for one day: what was accepted, what ended, what waits, and for how long.

Events count in the minute in which they are noted. The first event of another minute ends the current one. A minute
without events has no sample, and no timer runs. At most ``MINUTES`` samples are kept, encoded (about 40 bytes each).
Another module stores them.

If the clock is set back by more than a minute, the samples ahead of it are dropped. If it is set far ahead, nothing is
dropped until the clock is trusted, because samples are data that expires (``Clock.expiry``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from engine.metrics.function_metrics import StoredEnd
from engine.metrics.histogram import SECONDS, Distribution
from engine.model import Function, Invocation, Mode, Outcome, State
from engine.model.clock import Clock
from engine.model.signal import Signal

MINUTES = 1_440  #: samples kept
MINUTE = 60.0
SLACK = 60.0  #: seconds by which the clock may be set back without an earlier minute beginning again
_RANGES = len(SECONDS) + 1


class Sample(Struct, array_like=True):
    """Counts of one or several minutes. New fields are added at the end, with defaults."""

    accepted: int = 0  #: asynchronous requests
    called: int = 0  #: synchronous calls
    refused: int = 0
    succeeded: int = 0  #: ends of asynchronous invocations; also the next two
    failed: int = 0
    discarded: int = 0
    waiting: int = 0  #: unended asynchronous invocations at the end
    most_waiting: int = 0  #: largest number of them
    waits: list[int] = msgspec.field(default_factory=lambda: [0] * _RANGES)  #: attempts, by seconds from due to start

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


class Waiting(Protocol):
    """Number of asynchronous invocations that have not ended: now, and the largest one since ``restart_most``."""

    rows: int
    most_rows: int

    def restart_most(self) -> None: ...


class Samples:
    """Counters of the current minute, and the samples of earlier ones.

    ``changed()`` announces that a minute with events is over.
    """

    def __init__(self, clock: Clock, waiting: Waiting) -> None:
        self.changed: Signal[[]] = Signal()
        self._now, self._expiry, self._waiting = clock.now, clock.expiry, waiting
        self._kept: dict[int, bytes] = {}  #: by minute since the epoch
        self._sums: dict[int, dict[int, Sample | None]] = {}  #: of ``_kept``, by size and number of complete periods
        self._unsaved: set[int] = set()  #: minutes whose sample, or whose absence, is not stored
        self._minute: int | None = None
        self._from = self._until = 0.0  #: times that belong to the current minute
        self._sample = Sample()

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
        """Count an attempt by the time that the invocation waited for it."""
        now = self._now()
        if not self._from <= now < self._until:
            self._begin_minute(now)
        self._sample.waits[bisect_left(SECONDS, outcome.started_at - invocation.due_at)] += 1

    def note_end(self, end: StoredEnd) -> None:
        """Count the end of an asynchronous invocation, in the minute of its last attempt."""
        if end.state is State.SUCCESS and self._minute is not None:
            self._sample.succeeded += 1
        else:
            self.note_ends(end.state)

    def note_refused(self) -> None:
        self._current().refused += 1

    def note_ends(self, state: State, rows: int = 1) -> None:
        """Count ends of asynchronous invocations that are on disk."""
        sample = self._current()
        if state is State.SUCCESS:
            sample.succeeded += rows
        elif state is State.FAIL:
            sample.failed += rows
        else:
            sample.discarded += rows

    # --- reading --------------------------------------------------------------------------------------------

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
            sums[number] = _together(sums[number], self._complete())
        before = self._waiting_before(first * size)
        found = []
        for number in range(first, last + 1):
            one = sums[number]
            most = _largest(before, one.most_waiting if one else None, self.waiting if number == last else None)
            before = one.waiting if one else before
            found.append(Period(begin=number * size * MINUTE, minutes=size, sample=one, waiting=most))
        return found

    # --- storing --------------------------------------------------------------------------------------------

    def restore(self, stored: Mapping[int, bytes]) -> None:
        """Keep samples of earlier runs of the engine, by minute. Those that cannot be decoded are dropped."""
        self._sums.clear()
        for minute, body in stored.items():
            if _is_sample(body):
                self._kept[minute] = body
            else:
                self._unsaved.add(minute)

    def end_minute(self) -> None:
        """End the current minute early, so that its sample can be stored. Later events of the minute are added."""
        if self._minute is not None:
            self._keep(self._minute, self._complete())
            self._minute, self._from, self._until = None, 0.0, 0.0

    def unsaved(self) -> Mapping[int, bytes | None]:
        """Return samples that are not stored by minute, and None for those that must be deleted."""
        return {minute: self._kept.get(minute) for minute in self._unsaved}

    def note_saved(self, saved: Mapping[int, bytes | None]) -> None:
        """Tell that what ``unsaved`` returned is stored. What has changed since stays unsaved."""
        self._unsaved -= {minute for minute, body in saved.items() if self._kept.get(minute) is body}

    # --- inside ---------------------------------------------------------------------------------------------

    def _current(self) -> Sample:
        now = self._now()
        if not self._from <= now < self._until:
            self._begin_minute(now)
        return self._sample

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
        """Drop samples that are older than a day, or ahead of the clock, and the oldest if there are too many."""
        dropped: Iterable[int] = ()
        if not self._expiry.check():
            dropped = [minute for minute in self._kept if not current - MINUTES < minute <= current]
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
        return _together(*(msgspec.msgpack.decode(body, type=Sample) for body in kept))

    def _waiting_before(self, minute: int) -> int | None:
        """Return the number of unended invocations at the last event before a minute; None if it is not known."""
        if self._minute is not None and self._minute < minute:
            return self._waiting.rows
        last = max((one for one in self._kept if one < minute), default=None)
        return None if last is None else msgspec.msgpack.decode(self._kept[last], type=Sample).waiting


def _together(*samples: Sample | None) -> Sample | None:
    """Return the sum of samples, oldest first, as a new one; None if there are none."""
    known = [one for one in samples if one is not None]
    if not known:
        return None
    found = Sample()
    for one in known:
        found.add(one)
    return found


def _is_sample(body: bytes) -> bool:
    try:
        return len(msgspec.msgpack.decode(body, type=Sample).waits) == _RANGES
    except msgspec.MsgspecError:
        return False


def _largest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)
