"""Signals between the components of an engine: several listeners of one event, and news for a component above."""

from __future__ import annotations

import re

import structlog

from engine.app.parts import EngineParts
from engine.errors import Overloaded
from engine.metrics.function_metrics import FunctionMetrics
from engine.metrics.spans import Tracer
from engine.model import Function, Invocation, Outcome, Request
from engine.pipeline.delivery import DeliveryTry
from engine.pipeline.redrive import SOURCE
from engine.protocols import WaitingEnd

log = structlog.get_logger("functiond.clock")


def connect(engine: EngineParts) -> None:
    """Connect the signals of all components. The functions that are connected to a signal are called in this order."""
    engine.pool.controls_of = engine.controls.of
    engine.pool.retries_of = engine.dispatcher.retries_of
    engine.pool.files.project_of = engine.projects.of
    if engine.authenticator is not None:
        engine.registry.several = engine.authenticator.several
        engine.authenticator.replaced.connect(engine.sources.end_refused)
    _connect_clock(engine)
    _connect_catalog(engine)
    _connect_work(engine)
    _connect_usage(engine)
    if engine.function_metrics is not None:
        _connect_metrics(engine.function_metrics, engine)
    if engine.tracer is not None:
        _connect_tracer(engine.tracer, engine)


def _connect_clock(engine: EngineParts) -> None:
    alarms, expiry, guard = engine.clock.alarms, engine.clock.expiry, engine.clock_guard
    alarms.stepped.connect(lambda step: log.warning("the clock was set", seconds=round(step, 1)))
    alarms.stepped.connect(lambda step: expiry.check())
    expiry.doubted.connect(guard.note_doubt)
    expiry.cleared.connect(guard.note_correction)
    guard.released.connect(engine.scheduler.unpark)
    guard.released.connect(engine.pruner.run_now)
    guard.released.connect(engine.delivery.wake)
    guard.released.connect(engine.discarder.note_clock)


def _connect_catalog(engine: EngineParts) -> None:
    catalog, controls = engine.catalog, engine.controls
    catalog.changed.connect(engine.resources.triggers.follow)
    catalog.changed.connect(engine.resources.follow)
    catalog.changed.connect(controls.follow)
    catalog.changed.connect(engine.projects.follow)
    catalog.changed.connect(engine.function_changes.apply)
    catalog.changed.connect(engine.enabled.follow)
    catalog.changed.connect(engine.status_log.note_change)
    catalog.settings_changed.connect(engine.discarder.note_pause)
    controls.changed.connect(engine.function_changes.apply_controls)
    controls.changed.connect(engine.intake.refuse_calls)
    engine.resources.triggers.changed.connect(engine.sources.follow)
    if (authenticator := engine.authenticator) is not None:
        authenticator.replaced.connect(lambda: engine.projects.note_credentials(named=authenticator.principals.several))
        authenticator.replaced.connect(lambda: engine.scheduler.resume("other credentials"))


def _connect_work(engine: EngineParts) -> None:
    lag = engine.lag
    lag.in_flight = engine.dispatcher.is_running
    engine.delivery.begun.connect(lambda spec: lag.enter(f"delivery to {spec.destination}"))
    engine.dispatcher.attempt_ended.connect(lag.note_attempt)
    engine.storage.journal.released.connect(engine.scheduler.note_release)
    engine.storage.calls.groups_decided.connect(engine.groups.wake)
    engine.scheduler.kept_out.connect(engine.discarder.note_push)
    engine.storage.status_log.added.connect(engine.status_log.wake)
    engine.logs.status_store_changed.connect(engine.status_log.wake)
    engine.pool.capacity.connect(engine.scheduler.set_places)
    engine.pool.capacity.connect(lambda *_: engine.resources.reservations.replace_lost())
    if engine.pool.nodes is not None:
        engine.pool.allocator.wanted = engine.scheduler.waits
    engine.pool.reserve.lost.connect(engine.resources.reservations.replace_lost)


def _connect_usage(engine: EngineParts) -> None:
    usage, catalog = engine.usage, engine.catalog

    def note_refused(request: Request, error: Exception) -> None:
        usage.note_refused(catalog.id_of(request.function) if isinstance(error, Overloaded) else None)

    def note_ends(function_id: int, end: WaitingEnd, rows: int) -> None:
        usage.note_ends(function_id, end.state, end.outcome.code, rows)

    engine.intake.accepted.connect(usage.note_accepted)
    engine.intake.refused.connect(note_refused)
    engine.dispatcher.attempt_ended.connect(usage.note_attempt)
    engine.ends.end_stored.connect(usage.note_end)
    engine.ends.waiting_ended.connect(note_ends)
    usage.changed.connect(engine.usage_store.note_change)


def _connect_metrics(metrics: FunctionMetrics, engine: EngineParts) -> None:
    catalog = engine.catalog

    def note_refused(request: Request, error: Exception) -> None:
        metrics.note_refused(catalog.id_of(request.function), request.source, reason_of(error))

    def note_ends(function_id: int, end: WaitingEnd, rows: int) -> None:
        metrics.note_removed(function_id, end.outcome.code, rows)

    def note_delivery(done: DeliveryTry) -> None:
        source = done.record.source if done.record is not None else ""
        metrics.note_delivery(done.pending.function_id, source, done.pending.destination.destination, done.result)

    engine.intake.accepted.connect(metrics.note_accepted)
    engine.intake.refused.connect(note_refused)
    engine.dispatcher.attempt_ended.connect(metrics.note_attempt)
    engine.ends.end_stored.connect(metrics.note_end)
    engine.ends.waiting_ended.connect(note_ends)
    engine.delivery.tried.connect(note_delivery)
    catalog.changed.connect(metrics.follow)


def reason_of(error: Exception) -> str:
    """Return the name of an error as the value of a label: ``backlog_full`` for BacklogFull."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _connect_tracer(tracer: Tracer, engine: EngineParts) -> None:
    identity = engine.storage.identity

    def note_attempt(function: Function, invocation: Invocation, outcome: Outcome) -> None:
        repeats = invocation.cause and invocation.source == SOURCE
        tracer.note_attempt(function, invocation, outcome, identity.request_id(invocation.cause) if repeats else "")

    def note_delivery(done: DeliveryTry) -> None:
        if done.record is not None:
            tracer.note_delivery(done.pending, done.record, done.began_at, engine.clock.now(), done.problem)

    engine.dispatcher.attempt_ended.connect(note_attempt)
    engine.delivery.tried.connect(note_delivery)
