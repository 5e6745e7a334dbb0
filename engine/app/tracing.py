"""Tracing of an engine: its exporter of spans, and the signals that make spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine import __version__
from engine.app.parts import EngineParts
from engine.config.settings import TelemetrySettings
from engine.metrics.otlp import OtlpExporter
from engine.metrics.spans import Tracer
from engine.model import Function, Invocation, Outcome
from engine.pipeline.delivery import DeliveryTry
from engine.pipeline.redrive import SOURCE


@contextmanager
def tracing(settings: TelemetrySettings) -> Iterator[Tracer | None]:
    """Export spans until the block ends. Yield the maker of spans, or None if the settings name no receiver."""
    if not settings.endpoint:
        yield None
        return
    exporter = OtlpExporter(settings.endpoint, settings.service_name, __version__)
    with exporter.running():
        yield Tracer(exporter, settings.sampling)


def connect(tracer: Tracer, engine: EngineParts) -> None:
    """Connect the maker of spans to the components whose work it follows."""

    identity = engine.storage.identity

    def note_attempt(function: Function, invocation: Invocation, outcome: Outcome) -> None:
        repeats = invocation.cause and invocation.source == SOURCE
        tracer.note_attempt(function, invocation, outcome, identity.request_id(invocation.cause) if repeats else "")

    def note_delivery(one: DeliveryTry) -> None:
        if one.record is not None:
            tracer.note_delivery(one.pending, one.record, one.began_at, engine.clock.now(), one.problem)

    engine.dispatcher.attempt_ended.connect(note_attempt)
    engine.delivery.tried.connect(note_delivery)
