"""Spans of attempts and deliveries, and the queue of their exporter."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from engine.metrics import otlp
from engine.metrics.otlp import OtlpExporter
from engine.metrics.spans import Span, SpanStatistics, Tracer
from engine.model import Outcome
from engine.model.trace import TraceContext, parse_trace
from tests.support.builders import waiting
from tests.support.otlp_receiver import otlp_receiver
from tests.unit.metrics.test_usage import FUNCTION

SPAN = Span(
    name="run f",
    kind="consumer",
    context=TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True),
    began_at=1.0,
    ended_at=2.0,
    attributes={},
)


class KeptSpans:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, span: Span) -> None:
        self.spans.append(span)

    def statistics(self) -> SpanStatistics:
        return SpanStatistics(exported=len(self.spans), failed=0, dropped=0)


def spans_of(sampling: float, *, requests: int = 1, initialised: float = 0.0) -> Sequence[Span]:
    kept = KeptSpans()
    tracer = Tracer(kept.add, kept.statistics, sampling)
    for key in range(requests):
        outcome = Outcome(started_at=12.0, ended_at=13.0, initialised=initialised)
        tracer.note_attempt(FUNCTION, waiting(1, key=key, due_at=10.0), outcome)
    return kept.spans


def test_an_attempt_has_spans_of_its_wait_its_start_and_its_run() -> None:
    wait, start, run = spans_of(1.0, initialised=0.25)

    assert [(span.name, span.began_at, span.ended_at) for span in (wait, start, run)] == [
        ("wait used", 10.0, 12.0),
        ("start used", 12.0, 12.25),
        ("run used", 12.0, 13.0),
    ]
    assert (wait.parent_id, start.parent_id, run.parent_id) == ("", run.context.span_id, wait.context.span_id)
    assert (run.attributes["faas.coldstart"], spans_of(1.0)[-1].attributes["faas.coldstart"]) == (True, False)


def test_an_invocation_that_repeats_another_links_to_its_first_span() -> None:
    kept = KeptSpans()
    tracer, first, again = Tracer(kept.add, kept.statistics, 1.0), waiting(1, key=5), waiting(1, key=6)
    tracer.note_attempt(FUNCTION, first, Outcome())
    tracer.note_attempt(FUNCTION, again, Outcome(), first.request_id)

    wait, run, next_wait, next_run = kept.spans
    assert next_wait.link == wait.context
    assert (wait.link, run.link, next_run.link) == (None, None, None)


def test_sampling_chooses_a_share_of_the_traces_that_begin_here() -> None:
    sampled = {span.context.trace_id for span in spans_of(0.25, requests=400)}

    assert 50 < len(sampled) < 150
    assert spans_of(0.0, requests=20) == []


def test_the_trace_context_of_an_attempt_names_its_span_before_it_is_made() -> None:
    invocation = waiting(1, key=5)
    kept = KeptSpans()
    tracer = Tracer(kept.add, kept.statistics, 1.0)

    context = parse_trace(tracer.trace_of_attempt(invocation))
    tracer.note_attempt(FUNCTION, invocation, Outcome())

    assert context == kept.spans[-1].context


def test_spans_beyond_the_queue_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "QUEUE", 3)
    exporter = OtlpExporter("http://127.0.0.1:9/v1/traces", "", "0")

    for _ in range(5):
        exporter.add(SPAN)

    assert exporter.statistics() == SpanStatistics(exported=0, failed=0, dropped=2)


def test_spans_are_exported_after_an_export_that_raised_an_error() -> None:
    impossible = replace(SPAN, context=TraceContext("", "", True))

    with otlp_receiver() as receiver:
        exporter = OtlpExporter(receiver.url, "", "0")
        exporter.add(impossible)
        for _ in range(otlp.BATCH):  # the first batch is full at once, and one span is left
            exporter.add(replace(SPAN, link=SPAN.context))
        with exporter.running():
            [received] = receiver.spans(1)

    assert (received.name, received.links) == ("run f", [SPAN.context.span_id])
    assert exporter.statistics() == SpanStatistics(exported=1, failed=otlp.BATCH, dropped=0)


def test_the_thread_of_the_exporter_ends_with_the_engine() -> None:
    before = threading.active_count()
    exporter = OtlpExporter("http://127.0.0.1:9/v1/traces", "", "0")

    with exporter.running():
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


def test_an_engine_without_receiver_loads_no_tracing_library() -> None:
    program = "import sys, engine.app.service; print([name for name in sys.modules if 'opentelemetry' in name])"

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
