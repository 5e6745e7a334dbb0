"""Spans of an engine, sent over OTLP/HTTP to a receiver that the test runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.model.trace import parse_trace
from tests.acceptance.engine_process import EngineProcess, engine_on, to, to_function, until, urn_of
from tests.support.engine_process import CLEAN, ROOT, functiond
from tests.support.otlp_receiver import Received, otlp_receiver
from tests.support.ports import free_ports
from tests.support.webhooks import webhook_receiver

pytestmark = pytest.mark.long

TRACE_ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE = f"00-{TRACE_ID}-{PARENT}-01"
PRODUCER, CONSUMER, INTERNAL = 4, 5, 1
#: Fails at the first attempt, then returns its trace context.
RETRIED = """
import os

def handler(event, context):
    if not os.path.exists(event["file"]):
        open(event["file"], "w").close()
        raise ValueError("not yet")
    return context.traceparent
"""
SEEING = "def handler(event, context):\n    return context.traceparent\n"


def named(spans: Sequence[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


def seen(engine: EngineProcess, name: str, request_id: str) -> str:
    return str(engine.record(name, request_id, wait=60)["result"])


def test_the_spans_of_a_chain_of_functions_are_one_trace(tmp_path: Path) -> None:
    """Kill the engine between acceptance and run. A retried function invokes another one, which calls a webhook."""
    with (
        otlp_receiver() as traces,
        webhook_receiver(500) as hook,
        engine_on(tmp_path / "data", FUNCTIOND_TELEMETRY__ENDPOINT=traces.url, OTEL_SERVICE_NAME="shop") as engine,
    ):
        engine.create("first", RETRIED)
        engine.create("next", SEEING)
        engine.configure("first", max_async_retry_attempts=1, destination_config={"on_success": to_function("next")})
        engine.configure("next", destination_config={"on_success": to("WEBHOOK", url=hook.url)})
        request_id = engine.accepted(
            "first", {"file": str(tmp_path / "file")}, traceparent=TRACE, X_Functiond_Delay="3"
        )
        engine.kill()
        engine.start()
        handed = seen(engine, "first", request_id)
        until(lambda: len(hook.requests) == 2)
        sent = [request.headers[b"traceparent"].decode() for request in hook.requests]
        spans = traces.spans(9)
        assert engine.stop() == 0

    assert {span.trace_id for span in spans} == {TRACE_ID}
    assert {span.service for span in spans} == {"shop"}
    assert len({span.span_id for span in spans}) == len(spans)
    by_id = {span.span_id: span.name for span in spans}
    starts = [span for span in spans if span.name.startswith("start ")]
    assert sorted((span.name, by_id.get(span.parent_id, "outside")) for span in spans if span not in starts) == [
        ("deliver FunctionGraph", "run first"),
        ("deliver WEBHOOK", "run next"),
        ("deliver WEBHOOK", "run next"),
        ("run first", "wait first"),
        ("run first", "wait first"),
        ("run next", "wait next"),
        ("wait first", "outside"),
        ("wait first", "wait first"),
        ("wait next", "deliver FunctionGraph"),
    ]
    assert {by_id[span.parent_id] for span in starts} <= {"run first", "run next"}
    assert [span.parent_id for span in named(spans, "wait first") if span.parent_id not in by_id] == [PARENT]
    failed, run = sorted(named(spans, "run first"), key=lambda span: span.attributes["functiond.attempt"])
    assert ("not yet" in failed.error, run.error) == (True, "")
    assert (failed.attributes["error.type"], failed.attributes["functiond.code"]) == ("4002", 4002)
    assert run.attributes["faas.invocation_id"] == request_id
    assert handed == f"00-{TRACE_ID}-{run.span_id}-01"
    deliveries = named(spans, "deliver WEBHOOK")
    assert {f"00-{TRACE_ID}-{span.span_id}-01" for span in deliveries} == set(sent)
    assert sorted(span.error == "" for span in deliveries) == [False, True]
    assert {span.kind for span in named(spans, "run first")} == {CONSUMER}
    assert {span.kind for span in deliveries} == {PRODUCER}


def test_a_request_without_trace_context_begins_a_trace_and_one_that_is_not_sampled_is_not_sent(tmp_path: Path) -> None:
    with (
        otlp_receiver() as traces,
        engine_on(
            tmp_path / "data",
            FUNCTIOND_TELEMETRY__ENDPOINT=traces.url,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=one",
        ) as engine,
    ):
        engine.create("seeing", SEEING)
        unsampled = seen(engine, "seeing", engine.accepted("seeing", traceparent=f"00-{TRACE_ID}-{PARENT}-00"))
        begun = engine.ask("POST", f"/v2/project1/fgs/functions/{urn_of('seeing')}/invocations", {}).body.decode()
        spans = traces.spans(2)
        # A span counts when the receiver's answer has arrived, after the span itself.
        until(lambda: engine.metric('functiond_spans_total{result="exported"}') == 2)
        assert engine.stop() == 0

    assert len(spans) == 2
    context = parse_trace(begun)
    assert context is not None
    [wait], [run] = named(spans, "wait seeing"), named(spans, "run seeing")
    assert (context.trace_id, context.span_id, context.sampled) == (run.trace_id, run.span_id, True)
    assert (wait.parent_id, run.parent_id) == ("", wait.span_id)
    assert parse_trace(unsampled) is not None
    assert unsampled.startswith(f"00-{TRACE_ID}-")
    assert unsampled.endswith("-00")
    assert {headers["x-tenant"] for headers in traces.headers} == {"one"}


def test_an_absent_receiver_delays_neither_work_nor_the_stop(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with engine_on(tmp_path / "data", FUNCTIOND_TELEMETRY__ENDPOINT=f"http://127.0.0.1:{port}/v1/traces") as engine:
        engine.create("seeing", SEEING)

        assert seen(engine, "seeing", engine.accepted("seeing"))
        assert engine.stop() == 0


def test_a_setting_that_needs_the_extra_names_it(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['opentelemetry'] = None; from engine.cli import main; main()"
    command = [sys.executable, "-c", blocked, "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environ = {**CLEAN, "FUNCTIOND_TELEMETRY__ENDPOINT": "http://127.0.0.1:9/v1/traces"}

    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, cwd=ROOT)

    assert refused.returncode == 2
    assert "pip install 'functiond[otel]'" in refused.stderr


@pytest.mark.parametrize("value", ["127.0.0.1:4318", "ftp://x"])
def test_an_endpoint_that_is_no_url_is_refused(tmp_path: Path, value: str) -> None:
    environ = {"FUNCTIOND_TELEMETRY__ENDPOINT": value}
    refused = functiond("serve", "--port", "0", "--data-dir", tmp_path / "data", environ=environ)

    assert refused.returncode == 2
    assert "telemetry.endpoint" in refused.stderr
