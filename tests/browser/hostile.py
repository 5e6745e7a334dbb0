"""Engine filled with names, payloads and errors that a page must show as text, without a change of its layout."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, to, urn_of
from tests.support.gateways import API

EVIL = "<script>alert(1)</script>\"'&amp;{{ 7*7 }}"
RTL = "\u202eabc \u05e9\u05dc\u05d5\u05dd"
LONG = "x" * 10_000  #: a word that no line has room for
NAME = "a" + "W" * 59  #: the longest name of a function
ALIAS = "l" * 60
WAITING = "waits"
_SOURCE = f"""
def handler(event, context):
    print({EVIL!r} + {RTL!r})
    print("y" * 5000)
    if event.get("fail"):
        raise ValueError({EVIL!r} + "x" * 10_000)
    return event
"""


def fill(engine: EngineProcess) -> Mapping[str, str]:
    """Create functions, triggers, invocations and deliveries. Return an example of each parameter of a path."""
    data = json.dumps({"KEY": EVIL, "LONG": "z" * 500})
    engine.create(NAME, _SOURCE, description=f"{EVIL} {RTL} {'d' * 300}", user_data=data)
    engine.create(WAITING, _SOURCE, package="p" * 40)
    _configure(engine)
    done = engine.accepted(NAME, {"said": EVIL + RTL + LONG})
    failed = engine.accepted(NAME, {"fail": True, "said": EVIL})
    for request_id in (done, failed):
        engine.record(NAME, request_id, wait=30)
    waiting = urn_of(WAITING).replace(":default:", f":{'p' * 40}:")
    engine.ask("POST", f"{BASE}/{waiting}/pause", {"reason": (EVIL + RTL + LONG)[:256]})
    for key in (EVIL, EVIL, "k" * 60):
        headers = {"X-Functiond-Ordering-Key": key}
        reply = engine.ask("POST", f"{BASE}/{waiting}/invocations-async", {"said": EVIL}, headers=headers)
        assert reply.status == 202, reply
    timer = {"name": "t" * 64, "schedule_type": "Rate", "schedule": "3d", "user_event": EVIL}
    api = {**API, "name": (EVIL + RTL + LONG)[:255], "path": f"/{'p' * 500}"}
    return {
        "project_id": PROJECT,
        "function": NAME,
        "request_id": failed,
        "alias": ALIAS,
        "qualifier": "latest",
        "trigger_id": engine.trigger(NAME, "TIMER", timer)["trigger_id"],
        "gateway_id": engine.trigger(NAME, "APIG", api)["trigger_id"],
        "trigger_type_code": "TIMER",
        "page": "triggers",
        "rest:path": "no-such-page/<b>",
    }


def _configure(engine: EngineProcess) -> None:
    nowhere = to("WEBHOOK", url=f"http://127.0.0.1:9/{'u' * 300}")
    engine.configure(NAME, max_async_retry_attempts=1, destination_config={"on_failure": nowhere})
    path = f"{BASE}/{urn_of(NAME)}"
    engine.ask("POST", f"{path}/versions", {"version": "v1", "description": EVIL})
    engine.ask("POST", f"{path}/aliases", {"name": ALIAS, "version": "v1", "description": EVIL + RTL})
    engine.ask("PUT", f"{path}/reservedinstances", {"count": 1})
    engine.ask("POST", f"{path}/events", {"name": "e" * 25, "content": json.dumps({"said": EVIL})})
    engine.ask(
        "POST", f"/v2/{PROJECT}/functions/{urn_of(NAME)}/tags/create", {"tags": [{"key": "k" * 36, "value": RTL}]}
    )
