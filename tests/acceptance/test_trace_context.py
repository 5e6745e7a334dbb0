"""Trace context of a request: through the queue and a kill, to the function, and out with its outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.engine_process import EngineProcess, engine_on, to, to_function, until
from tests.support.webhooks import webhook_receiver

pytestmark = pytest.mark.long

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PYTHON = """
import os

def handler(event, context):
    return [context.traceparent, os.environ.get("TRACEPARENT")]
"""


def result_of(engine: EngineProcess, name: str, request_id: str) -> object:
    return json.loads(engine.record(name, request_id, wait=60)["result"])


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
