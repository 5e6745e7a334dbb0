"""Trace context of a request: through the queue and a kill, to the function, and out with its outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.engine_process import EngineProcess, engine_on, to, to_function, until, urn_of
from tests.support.programs import needs
from tests.support.webhooks import webhook_receiver

pytestmark = pytest.mark.long

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PYTHON = """
import os

def handler(event, context):
    return [context.traceparent, os.environ.get("TRACEPARENT")]
"""
NODE = """
exports.handler = async (event, context) => [context.traceparent, process.env.TRACEPARENT ?? null];
"""


def result_of(engine: EngineProcess, name: str, request_id: str) -> object:
    return json.loads(engine.record(name, request_id, wait=60)["result"])


def call(engine: EngineProcess, name: str, **headers: str) -> object:
    reply = engine.ask("POST", f"/v2/project1/fgs/functions/{urn_of(name)}/invocations", {}, headers=headers)
    assert reply.status == 200, reply
    return reply.json


@pytest.mark.parametrize(
    ("runtime", "source"),
    [
        ("Python3.10", PYTHON),
        pytest.param("Node.js18.15", NODE, marks=needs("node")),
    ],
)
def test_a_function_sees_the_trace_context_of_each_request(tmp_path: Path, runtime: str, source: str) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("seeing", source, runtime=runtime)

        asynchronous = result_of(engine, "seeing", engine.accepted("seeing", traceparent=TRACE))
        synchronous = call(engine, "seeing", traceparent=TRACE)
        without = call(engine, "seeing")
        invalid = call(engine, "seeing", traceparent="00-1-2-3")

    assert asynchronous == synchronous == [TRACE, TRACE]
    assert without == invalid == ["", None]


def test_an_instance_of_several_requests_has_no_trace_context_in_its_environment(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("seeing", PYTHON, strategy_config={"concurrency": 400, "concurrent_num": 4})

        assert call(engine, "seeing", traceparent=TRACE) == [TRACE, None]


def test_the_trace_context_survives_a_kill_and_goes_out_with_the_outcome(tmp_path: Path) -> None:
    with webhook_receiver(500) as hook, engine_on(tmp_path / "data") as engine:
        engine.create("seeing", PYTHON)
        engine.create("next", PYTHON)
        engine.configure("seeing", destination_config={"on_success": to_function("next")})
        engine.configure("next", destination_config={"on_success": to("WEBHOOK", url=hook.url)})
        request_id = engine.accepted("seeing", traceparent=TRACE, X_Functiond_Delay="2")

        engine.kill()
        engine.start()

        assert result_of(engine, "seeing", request_id) == [TRACE, TRACE]
        tries = until(lambda: len(hook.requests) == 2 and hook.requests)

    assert [request.headers[b"traceparent"].decode() for request in tries] == [TRACE, TRACE]
    assert json.loads(json.loads(tries[0].body)["response_payload"]) == [TRACE, TRACE]
