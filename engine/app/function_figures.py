"""Metrics by function and source, from the counters of functions and the queue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from engine.app.health import EngineHealth
from engine.app.parts import EngineParts
from engine.metrics.function_metrics import (
    LABELS,
    OTHER,
    FunctionCounters,
    FunctionMetrics,
    Labels,
)
from engine.metrics.histogram import Distribution
from engine.metrics.prometheus import Family
from engine.model import Code, Mode, Request
from engine.pipeline.delivery import DeliveryTry

MOST_LAGS = 1000
_FUNCTION = LABELS[:3]
_Counted = Sequence[tuple[Labels, FunctionCounters]]


def read_families(engine: EngineParts, health: EngineHealth, project: str | None = None) -> Iterator[Family]:
    """Yield the health of the engine, then the metrics by function and source unless they are off.

    ``project`` is the only one whose functions and triggers are named; None: all are.
    """
    healthy = 0.0 if health.problems() else 1.0
    yield Family(name="healthy", help="0 while /healthz fails", kind="gauge", labels=(), samples=[((), healthy)])
    labels, lags = ("trigger", "partition"), engine.sources.lags(MOST_LAGS, project)
    yield Family(name="trigger_lag", help="Events not read yet", kind="gauge", labels=labels, samples=lags)
    metrics = engine.function_metrics
    if metrics is None:
        return
    counted = [*metrics.all()]
    for family in (*_requests(counted, _running(engine, metrics)), *_ends(counted), *_waiting(engine, metrics)):
        shown = [one for one in family.samples if project is None or one[0][0] in ("", project)]
        yield replace(family, samples=shown)
    used = "Functions and sources that have metrics of their own"
    yield Family(name="function_labels", help=used, kind="gauge", labels=(), samples=[((), metrics.used)])
    most = "Largest number of functions and sources that have metrics of their own"
    yield Family(name="function_labels_limit", help=most, kind="gauge", labels=(), samples=[((), metrics.limit)])


def connect(metrics: FunctionMetrics, engine: EngineParts) -> None:
    """Connect the counters to the signals of the components that they count."""
    catalog = engine.catalog

    def note_refused(request: Request, error: Exception) -> None:
        metrics.note_refused(catalog.id_of(request.function), request.source, reason_of(error))

    def note_delivery(one: DeliveryTry) -> None:
        source = one.record.source if one.record is not None else ""
        metrics.note_delivery(one.pending.function_id, source, one.pending.destination.destination, one.result)

    engine.intake.accepted.connect(metrics.note_accepted)
    engine.intake.refused.connect(note_refused)
    engine.dispatcher.attempt_ended.connect(metrics.note_attempt)
    engine.dispatcher.end_stored.connect(metrics.note_end)
    engine.dispatcher.waiting_cancelled.connect(
        lambda function_id, rows: metrics.note_removed(function_id, Code.CANCELLED, rows)
    )
    engine.dispatcher.bulk_cancellation.ended.connect(
        lambda function_id, end, rows: metrics.note_removed(function_id, end.outcome.code, rows)
    )
    engine.delivery.tried.connect(note_delivery)
    catalog.changed.connect(metrics.follow)


def reason_of(error: Exception) -> str:
    """Return the name of an error as the value of a label: ``backlog_full`` for BacklogFull."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _requests(counted: _Counted, running: Mapping[Labels, int]) -> Iterator[Family]:
    received = ((labels, one.accepted + one.refused) for labels, one in counted)
    yield _counter("received", "Requests for a function, accepted or refused, by source", received)
    started = ((labels, one.attempts.total() + running.get(labels, 0)) for labels, one in counted)
    yield _counter("started", "Attempts started", started)
    attempts = (((*labels, str(int(code))), n) for labels, one in counted for code, n in one.attempts.items())
    yield _counter("attempts", "Attempts ended, by error code", attempts, "code")


def _ends(counted: _Counted) -> Iterator[Family]:
    ended = (((*labels, state), n) for labels, one in counted for state, n in one.ended.items())
    yield _counter("ended", "Invocations ended, by state", ended, "state")
    dropped = (((*labels, reason), n) for labels, one in counted for reason, n in one.dropped.items())
    yield _counter("dropped", "Requests refused, and invocations ended without a result, by reason", dropped, "reason")
    deliveries = (((*labels, *kind), n) for labels, one in counted for kind, n in one.deliveries.items())
    yield _counter("deliveries", "Tries of deliveries, by destination and result", deliveries, "destination", "result")
    waits = [(labels, one.wait_seconds.snapshot()) for labels, one in counted]
    yield _histogram("wait_seconds", "Seconds from the due time to the start of an attempt", waits)
    runs = [(labels, one.run_seconds.snapshot()) for labels, one in counted]
    yield _histogram("run_seconds", "Duration of attempts in seconds", runs)


def _waiting(engine: EngineParts, metrics: FunctionMetrics) -> Iterator[Family]:
    """Yield the gauges of waiting work, by function only: the sums on disk have no sources."""
    backlog, now = engine.backlog, engine.clock.now()
    running = Counter(one.function_id for one in engine.dispatcher.running() if one.mode is Mode.ASYNC)
    waiting: dict[tuple[str, ...], float] = {}
    ages: dict[tuple[str, ...], float] = {}
    paused: dict[tuple[str, ...], float] = {}
    for function_id, labels in metrics.functions().items():
        waiting[labels] = max(0, backlog.of(function_id)[0] - running[function_id])
        paused[labels] = float(engine.controls.of(function_id).paused)
        due_at = engine.scheduler.oldest_due(function_id)
        ages[labels] = 0.0 if due_at is None else max(0.0, now - due_at)
    waiting["", "", OTHER] = max(0, backlog.rows - running.total() - sum(waiting.values()))
    yield _gauge("waiting_invocations", "Accepted asynchronous invocations that do not run and have not ended", waiting)
    yield _gauge("paused", "1 while the asynchronous invocations of a function are paused", paused)
    yield _gauge("oldest_age_seconds", "Seconds since the invocation at the head of a function's queue was due", ages)


def _running(engine: EngineParts, metrics: FunctionMetrics) -> Mapping[Labels, int]:
    running: Counter[Labels] = Counter()
    for invocation in engine.dispatcher.running():
        running[metrics.labels_of(invocation.function_id, invocation.source)] += 1
    return running


def _histogram(name: str, help: str, samples: Sequence[tuple[Labels, Distribution]]) -> Family:
    return Family(name=f"function_{name}", help=help, kind="histogram", labels=LABELS, samples=samples)


def _gauge(name: str, help: str, values: Mapping[tuple[str, ...], float]) -> Family:
    return Family(name=f"function_{name}", help=help, kind="gauge", labels=_FUNCTION, samples=[*values.items()])


def _counter(name: str, help: str, samples: Iterable[tuple[tuple[str, ...], float]], *more: str) -> Family:
    return Family(name=f"function_{name}", help=help, kind="counter", labels=(*LABELS, *more), samples=[*samples])
