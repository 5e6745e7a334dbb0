"""Requests to an engine's API, and comparison of replies by different engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, urn_of

ROOT = f"/v2/{PROJECT}"
FGS = f"{ROOT}/fgs"
OTHER = "project2"
#: Fields that show the running process rather than stored data.
_OF_THE_PROCESS = frozenset({"fail_count", "destination_state", "destination_next_try", "under_way"})


def call(engine: EngineProcess, method: str, path: str, body: object = None, **headers: str) -> Any:
    """Send a request that must succeed. Return its reply: JSON decoded, other contents as text."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = engine.ask(method, path, body, headers=named)
    assert reply.status < 300, (method, path, reply)
    return _content(reply)


def read(engine: EngineProcess, path: str) -> Any:
    """Return the reply to a GET, also an error, without the id of this request that replies about topics have."""
    content = _content(engine.ask("GET", path))
    if "/notifications/" in path and isinstance(content, dict):
        content.pop("request_id", None)
    return content


def _content(reply: Reply) -> Any:
    is_json = reply.headers.get("content-type", "").startswith("application/json")
    return json.loads(reply.body) if is_json and reply.body else reply.body.decode()


def function(name: str) -> str:
    return f"{BASE}/{urn_of(name)}"


def triggers(name: str) -> str:
    return f"{FGS}/triggers/{urn_of(name)}"


def stream_records(engine: EngineProcess, stream: str, partition: str) -> list[Any]:
    """Return all records of a partition of a DIS stream."""
    start = f"stream-name={stream}&partition-id={partition}&cursor-type=TRIM_HORIZON"
    cursor = call(engine, "GET", f"{ROOT}/cursors?{start}")["partition_cursor"]
    records: list[Any] = call(engine, "GET", f"{ROOT}/records?partition-cursor={cursor}")["records"]
    return records


def invocations(engine: EngineProcess, name: str) -> list[Any]:
    """Return the records of all invocations of a function, oldest first."""
    path = f"{function(name)}/async-invocations?limit=500&query_begin_time=2020-01-01T00:00:00"
    ids = [item["request_id"] for item in call(engine, "GET", path)["invocations"]]
    return [engine.record(name, request_id) for request_id in sorted(ids)]


def limit(engine: EngineProcess, name: str, instances: int) -> None:
    """Set the largest number of instances; 0 disables the function."""
    call(engine, "PUT", f"{function(name)}/config-max-instance", {"max_instance_num": instances})


def lost(expected: Any, later: Any, place: str = "") -> Iterator[str]:
    """Yield each place of an earlier reply whose value a later one does not have.

    The later reply may have more fields, but not more entries in a list. A log may have further lines at its end:
    instances of the later engine write to it.
    """
    if isinstance(expected, dict) and isinstance(later, dict):
        for name in expected.keys() - _OF_THE_PROCESS:
            yield from lost(expected[name], later.get(name), f"{place}.{name}")
    elif isinstance(expected, list) and isinstance(later, list) and len(expected) == len(later):
        for index, pair in enumerate(zip(expected, later, strict=True)):
            yield from lost(*pair, f"{place}[{index}]")
    elif place.endswith("/logs") and isinstance(expected, str) and isinstance(later, str):
        if not later.startswith(expected):
            yield f"{place}: {expected!r:.300} is no longer the beginning of {later!r:.300}"
    elif expected != later:
        yield f"{place}: {expected!r:.300} became {later!r:.300}"
