"""Signals between the components of an engine: which one hears of an event of which other."""

from __future__ import annotations

import structlog

from engine.app.parts import EngineParts
from engine.model import Code, State
from engine.protocols import WaitingEnd
from engine.triggers.context import EnabledFunctions

log = structlog.get_logger("functiond.clock")


def connect(engine: EngineParts, enabled: EnabledFunctions) -> None:
    """Connect the signals of all components. The functions that are connected to a signal are called in this order."""
    engine.pool.controls_of = engine.controls.of
    _connect_loop(engine)
    _connect_clock(engine)
    _connect_catalog(engine, enabled)
    _connect_pipeline(engine)
    _connect_samples(engine)


def _connect_loop(engine: EngineParts) -> None:
    lag = engine.lag
    lag.in_flight = engine.dispatcher.is_running
    lag.began.connect(engine.loop_watch.wake)
    engine.delivery.begun.connect(lambda spec: lag.enter(f"delivery to {spec.destination}"))
    engine.dispatcher.attempt_ended.connect(lag.note_attempt)


def _connect_clock(engine: EngineParts) -> None:
    alarms, expiry, guard = engine.clock.alarms, engine.clock.expiry, engine.clock_guard
    alarms.stepped.connect(lambda step: log.warning("the clock was set", seconds=round(step, 1)))
    alarms.stepped.connect(lambda step: expiry.check())
    expiry.doubted.connect(guard.note_doubt)
    expiry.cleared.connect(guard.note_correction)
    guard.released.connect(engine.scheduler.unpark)
    guard.released.connect(engine.pruner.run_now)
    guard.released.connect(engine.delivery.wake)


def _connect_catalog(engine: EngineParts, enabled: EnabledFunctions) -> None:
    catalog, controls = engine.catalog, engine.controls
    catalog.changed.connect(engine.resources.triggers.follow)
    catalog.changed.connect(engine.resources.follow)
    catalog.changed.connect(controls.follow)
    catalog.changed.connect(engine.function_changes.apply)
    catalog.changed.connect(enabled.follow)
    catalog.changed.connect(engine.status_log.note_change)
    catalog.settings_changed.connect(engine.paused_expiry.note_pause)
    controls.changed.connect(engine.function_changes.apply_controls)
    controls.changed.connect(engine.intake.refuse_calls)
    engine.resources.triggers.changed.connect(engine.sources.follow)


def _connect_pipeline(engine: EngineParts) -> None:
    dispatcher, usage, catalog, clock = engine.dispatcher, engine.usage, engine.catalog, engine.clock

    def note_ends(function_id: int, end: WaitingEnd, rows: int) -> None:
        if end.outcome.code == Code.EXPIRED:
            usage.note_ends(function_id, end.state, rows, clock.now())

    engine.intake.overloaded.connect(lambda urn: usage.note_reject(catalog.id_of(urn), clock.now()))
    engine.storage.journal.released.connect(engine.scheduler.note_release)
    engine.scheduler.pushed_to_closed.connect(engine.discarder.enqueue)
    engine.scheduler.pushed_to_paused.connect(engine.paused_expiry.note_push)
    engine.scheduler.pause_began.connect(engine.paused_expiry.note_pause)
    engine.clock_guard.released.connect(engine.paused_expiry.note_clock)
    engine.dispatcher.bulk_cancellation.delivery_added.connect(engine.delivery.wake)
    dispatcher.attempt_ended.connect(usage.note_attempt)
    dispatcher.expired.connect(lambda one, state, rows: usage.note_ends(one, state, rows, clock.now()))
    dispatcher.bulk_cancellation.ended.connect(note_ends)
    dispatcher.end_stored.connect(engine.pruner.note_end)
    dispatcher.end_stored.connect(engine.delivery.note_end)
    dispatcher.bulk_cancellation.ends_stored.connect(engine.pruner.note_end)
    engine.storage.status_log.added.connect(engine.status_log.wake)
    engine.logs.status_store_changed.connect(engine.status_log.wake)
    usage.used.connect(engine.usage_store.note_use)
    engine.pool.reserve.lost.connect(engine.resources.reservations.replace_lost)


def _connect_samples(engine: EngineParts) -> None:
    samples, dispatcher = engine.samples, engine.dispatcher
    engine.intake.accepted.connect(samples.note_accepted)
    engine.intake.refused.connect(lambda request, error: samples.note_refused())
    dispatcher.attempt_ended.connect(samples.note_attempt)
    dispatcher.end_stored.connect(samples.note_end)
    dispatcher.waiting_cancelled.connect(lambda function_id, rows: samples.note_ends(State.FAIL, rows))
    dispatcher.bulk_cancellation.ended.connect(lambda function_id, end, rows: samples.note_ends(end.state, rows))
    samples.changed.connect(engine.sample_store.note_change)
