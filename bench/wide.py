"""Inputs of one project that are as wide as is permitted, or wider: lists of triggers, and events that are invalid."""

from __future__ import annotations

import json
from typing import Any

from bench.nasty import Input, Prepare
from bench.server import NOOP, Engine
from engine.http.api.batches import MOST_EVENTS
from engine.resources.trigger_rules import ENTRIES, ENTRY

TYPES = 29_000  #: types of events in one list: as many as fit into the body
KEYS = 20_000
EVENTS = 3_000
TRIGGERS = 9
BATCH = {"Content-Type": "application/cloudevents-batch+json"}


def _create(path: str, kind: str, **data: Any) -> Input:
    body = json.dumps({"trigger_type_code": kind, "event_data": data}, separators=(",", ":")).encode()
    return Input(method="POST", path=path.replace("/functions/", "/triggers/"), body=body)


def _options(engine: Engine, scale: float) -> Input:
    path = engine.deploy("wide", NOOP)
    return _create(path, "EVENTGRID", channel_id="c", event_types=[f"t{number}" for number in range(TYPES)])


def _keys(engine: Engine, scale: float) -> Input:
    path = engine.deploy("wide", NOOP)
    return _create(path, "CTS", name="n", operations=["S:r:a"], **{f"k{number}": 1 for number in range(KEYS)})


def _traces(engine: Engine, scale: float) -> Input:
    path, names = engine.deploy("wide", NOOP), ";".join(f"n{number}" for number in range(25_000))
    for number in range(TRIGGERS):
        operations = [f"S:{names[: ENTRY - 9].rpartition(';')[0]}:a"]
        given = _create(path, "CTS", name=f"n{number}", operations=operations)
        engine.call(given.method, given.path, json.loads(given.body))
    trace = {"service_type": "S", "resource_type": "other", "trace_name": "a"}
    traces = [{**trace, "trace_id": str(number)} for number in range(1000)]
    return Input(method="POST", path="/triggers/cts", body=json.dumps(traces).encode())


def _events(engine: Engine, scale: float) -> Input:
    path = engine.deploy("wide", NOOP)
    for number in range(TRIGGERS):
        types = [f"t{number}" for number in range(ENTRIES)]
        given = _create(path, "EVENTGRID", channel_id="c", trigger_name=f"n{number}", event_types=types)
        engine.call(given.method, given.path, json.loads(given.body))
    event = {"specversion": "1.0", "source": "s", "type": "other"}
    events = [{**event, "id": str(number)} for number in range(EVENTS)]
    return Input(method="POST", path="/triggers/eventgrid/c", body=json.dumps(events).encode(), headers=BATCH)


def _batch(engine: Engine, scale: float) -> Input:
    path = engine.deploy("wide", NOOP) + "/invocations-async/batch"
    return Input(method="POST", path=path, body=json.dumps({"events": [{"priority": 10}] * MOST_EVENTS}).encode())


WIDE: dict[str, Prepare] = {
    "wide options": _options,
    "unknown keys": _keys,
    "wide traces": _traces,
    "wide events": _events,
    "invalid batch": _batch,
}
