"""Metrics by function and source: requests, attempts, ends, drops, times and deliveries since the engine started.

Each function and source that is used gets a set of counters (``FunctionCounters``) with labels of its own, up to a
limit. All others share one set, whose label ``function`` is ``other``. The counters of a deleted function are added to
this set, so that sums over all labels never fall. Counting takes about a microsecond for an invocation.

The counters are in memory only. After a restart, or in an engine that takes over, they begin at 0, as Prometheus
expects of counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from engine.metrics.histogram import Histogram
from engine.model import Code, Function, Invocation, Mode, Outcome, State

OTHER = "other"
LABELS = ("project", "package", "function", "source")
#: Seconds of the histograms of functions: fewer ranges than those of the whole engine, because each function has them.
TIMES = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3600.0)
#: Reasons for which invocations end without a result, by code.
_DROPS: Mapping[int, str] = {
    Code.EXPIRED: "expired",
    Code.FUNCTION_MISSING: "deleted",
    Code.CANCELLED: "cancelled",
    Code.CALL_BEFORE: "call_before",
}

Labels = tuple[str, str, str, str]  #: values of ``LABELS``


class StoredEnd(Protocol):
    """End of an invocation that is on disk, as ``note_end`` counts it."""

    @property
    def invocation(self) -> Invocation: ...

    @property
    def state(self) -> State: ...

    @property
    def outcome(self) -> Outcome: ...


class FunctionCounters:
    """Counters of one function and source."""

    __slots__ = (
        "accepted", "attempts", "deliveries", "dropped", "refused", "run_seconds", "succeeded", "unsuccessful",
        "wait_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.accepted = self.refused = self.succeeded = 0
        self.attempts: Counter[int] = Counter()  #: by code
        self.unsuccessful: Counter[str] = Counter()  #: other ends, by state
        self.dropped: Counter[str] = Counter()  #: by reason
        self.deliveries: Counter[tuple[str, str]] = Counter()  #: by kind of the destination, and result
        self.wait_seconds, self.run_seconds = Histogram(TIMES), Histogram(TIMES)

    @property
    def ended(self) -> Mapping[str, int]:
        """Ends by state."""
        return {State.SUCCESS.value: self.succeeded, **self.unsuccessful} if self.succeeded else self.unsuccessful

    def add(self, other: FunctionCounters) -> None:
        self.accepted += other.accepted
        self.succeeded += other.succeeded
        self.refused += other.refused
        self.attempts.update(other.attempts)
        self.unsuccessful.update(other.unsuccessful)
        self.dropped.update(other.dropped)
        self.deliveries.update(other.deliveries)
        self.wait_seconds.add(other.wait_seconds)
        self.run_seconds.add(other.run_seconds)


class FunctionMetrics:
    """Counters of all functions. At most ``limit`` functions and sources have labels of their own.

    ``find`` returns the ``latest`` version of a function, or None if the function was deleted.
    """

    def __init__(self, find: Callable[[int], Function | None], limit: int) -> None:
        self._find, self.limit = find, limit
        self._counters: dict[tuple[int, str], FunctionCounters] = {}
        self._labels: dict[tuple[int, str], Labels] = {}
        self._other = FunctionCounters()

    # --- counting -------------------------------------------------------------------------------------------

    def note_accepted(self, invocation: Invocation, rows: int = 1) -> None:
        """Count accepted requests: asynchronous ones that are on disk, or synchronous ones that are queued."""
        try:  # the counters of each call exist, except at the first
            self._counters[invocation.function_id, invocation.source].accepted += rows
        except KeyError:
            self._of(invocation.function_id, invocation.source).accepted += rows

    def note_refused(self, function_id: int | None, source: str, reason: str) -> None:
        """Count a refused request. Does nothing if ``function_id`` is None, because the function does not exist."""
        if function_id is not None:
            counters = self._of(function_id, source)
            counters.refused += 1
            counters.dropped[reason] += 1

    def note_attempt(self, function: Function, invocation: Invocation, outcome: Outcome) -> None:
        """Count an attempt that has ended, and the end of a synchronous call."""
        try:
            counters = self._counters[invocation.function_id, invocation.source]
        except KeyError:
            counters = self._of(invocation.function_id, invocation.source)
        started_at, code = outcome.started_at, outcome.code
        counters.attempts[code] += 1
        counters.wait_seconds.observe(started_at - invocation.due_at)
        counters.run_seconds.observe(outcome.ended_at - started_at)
        if invocation.mode is Mode.SYNC:
            self._count_end(counters, State.FAIL if code else State.SUCCESS, code)

    def note_end(self, end: StoredEnd) -> None:
        """Count the end of an asynchronous invocation."""
        invocation, state = end.invocation, end.state
        try:
            counters = self._counters[invocation.function_id, invocation.source]
        except KeyError:
            counters = self._of(invocation.function_id, invocation.source)
        if state is State.SUCCESS:
            counters.succeeded += 1
        else:
            self._count_end(counters, state, end.outcome.code)

    def note_removed(self, function_id: int, code: int, rows: int = 1) -> None:
        """Count invocations that ended on disk without being read, so that their sources are not known."""
        counters = self._of(function_id, "")
        state = State.FAIL if code == Code.CANCELLED else State.DISCARD
        counters.unsuccessful[state.value] += rows
        counters.dropped[_DROPS[code]] += rows

    def note_delivery(self, function_id: int, source: str, destination: str, result: str) -> None:
        """Count a try of a delivery, with its result: ``delivered``, ``failed`` or ``given_up``."""
        self._of(function_id, source).deliveries[destination, result] += 1

    def follow(self, function_id: int, function: Function | None) -> None:
        """Follow a change of a function: if it was deleted, move its counts to the set that others share."""
        if function is None:
            for key in [key for key in self._counters if key[0] == function_id]:
                self._other.add(self._counters.pop(key))
                self._labels.pop(key, None)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Number of functions and sources with labels of their own."""
        return len(self._counters)

    def all(self) -> Iterable[tuple[Labels, FunctionCounters]]:
        """Yield labels and counters, the shared counters last."""
        for key, labels in self._labels.items():
            yield labels, self._counters[key]
        yield ("", "", OTHER, OTHER), self._other

    def labels_of(self, function_id: int, source: str) -> Labels:
        """Return the labels under which a function and source are counted."""
        return self._labels.get((function_id, source), ("", "", OTHER, OTHER))

    def functions(self) -> Mapping[int, tuple[str, str, str]]:
        """Return project, package and name of the functions with labels of their own, by function id."""
        return {key[0]: labels[:3] for key, labels in self._labels.items()}

    # --- inside ---------------------------------------------------------------------------------------------

    def _of(self, function_id: int, source: str) -> FunctionCounters:
        return self._counters.get((function_id, source)) or self._add(function_id, source)

    def _add(self, function_id: int, source: str) -> FunctionCounters:
        function = self._find(function_id) if len(self._counters) < self.limit else None
        if function is None:
            return self._other
        key = (function_id, source)
        self._labels[key] = (function.project, function.package, function.name, source)
        counters = self._counters[key] = FunctionCounters()
        return counters

    def _count_end(self, counters: FunctionCounters, state: State, code: int) -> None:
        if state is State.SUCCESS:
            counters.succeeded += 1
        else:
            counters.unsuccessful[state.value] += 1
        if code in _DROPS:
            counters.dropped[_DROPS[code]] += 1
