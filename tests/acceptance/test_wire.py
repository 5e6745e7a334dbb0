"""Details of the HTTP API that break real clients, with raw requests like curl's and Terraform's, and the vendor's SDK.

Terraform sends raw colons in URNs and ``event_data`` as one object, and reads lists until the marker no longer moves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.acceptance.sdk import SDK_WARNINGS, sdk_client, sdk_home

FGS = f"/v2/{PROJECT}/fgs"
ECHO = "def handler(event, context):\n    return event\n"
TIMER = {"name": "tick", "schedule_type": "Cron", "schedule": "@every 1h30m"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"

pytestmark = SDK_WARNINGS


class Wire(Struct):
    engine: EngineProcess
    sdk: Any

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return self.engine.ask(method, path, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("wire")
    with sdk_home(folder), engine_on(folder / "data") as engine, ExitStack() as stack:
        engine.create("hello", ECHO)
        yield Wire(engine=engine, sdk=sdk_client(engine.port, stack, "any", "any", project=PROJECT))


def test_quotas_are_of_the_own_project(wire: Wire) -> None:
    wire.ask("POST", f"{BASE}/hello/invocations", {"k": 1})

    shown = [wire.ask("GET", f"/v2/{project}/fgs/quotas").json["quotas"]["resources"] for project in (PROJECT, "other")]
    own, others = ({one["type"]: one["used"] for one in resources} for resources in shown)

    assert own["fgs_on_demand_instance_limit"] >= 1
    assert own["fgs_func_num"] >= 1
    assert set(others.values()) == {0}


def test_what_is_deleted_is_answered_by_204_without_a_body(wire: Wire) -> None:
    wire.engine.create("doomed", ECHO)
    path, urn = f"{BASE}/{urn_of('doomed')}", urn_of("doomed")
    wire.ask("POST", f"{path}/versions", {"version": "v1"})
    wire.ask("POST", f"{path}/aliases", {"name": "live", "version": "v1"})
    wire.ask("PUT", f"{path}/async-invoke-config", {})
    event = wire.ask("POST", f"{path}/events", {"name": "one", "content": "e30="}).json["id"]
    tags = {"tags": [{"key": "k", "value": "v"}]}

    deleted = [
        wire.ask("POST", f"/v2/{PROJECT}/functions/{urn}/tags/create", tags),
        wire.ask("DELETE", f"/v2/{PROJECT}/functions/{urn}/tags/delete", tags),
        wire.ask("DELETE", f"{path}/events/{event}"),
        wire.ask("DELETE", f"{path}/async-invoke-config"),
        wire.ask("DELETE", f"{path}/aliases/live"),
        wire.ask("DELETE", f"{FGS}/triggers/{urn}"),
        wire.ask("DELETE", f"{BASE}/{urn.removesuffix('latest')}v1"),
        wire.ask("DELETE", f"{BASE}/{urn.removesuffix(':latest')}"),
    ]

    assert [(one.status, one.body) for one in deleted] == [(204, b"")] * len(deleted)
    assert [one.headers.get("content-length") for one in deleted] == [None] * len(deleted)


def test_the_life_of_a_function_as_terraform_sends_it(wire: Wire) -> None:
    body = {
        "func_name": "terraformed",
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 3,
        "memory_size": 128,
        "code_type": "inline",
        "func_code": {"file": "ZGVmIGhhbmRsZXIoZSwgYyk6IHJldHVybiBl"},
        "enterprise_project_id": "0",
        "xrole": "agency",
        "log_config": {"group_name": "group", "stream_name": "stream"},
    }
    made = wire.ask("POST", BASE, body)
    urn = made.json["func_urn"].removesuffix(":latest")
    kept = ("runtime", "handler", "timeout", "package", "xrole", "enterprise_project_id")
    change = {**{k: body[k] for k in kept}, "memory_size": 256}

    configured = wire.ask("PUT", f"{BASE}/{urn}/config", {**change, "user_data": json.dumps({"k": "v"})})
    limited = wire.ask("PUT", f"{BASE}/{urn}/config-max-instance", {"max_instance_num": 10})
    shown, code = wire.ask("GET", f"{BASE}/{urn}/config"), wire.ask("GET", f"{BASE}/{urn}/code")
    gone = wire.ask("DELETE", f"{BASE}/{urn}")

    assert (made.status, configured.status, limited.status, gone.status) == (200, 200, 200, 204)
    assert shown.json.items() >= {**change, "log_config": body["log_config"]}.items()
    assert (shown.json["user_data"], shown.json["strategy_config"]["concurrency"]) == ('{"k": "v"}', 10)
    assert code.json["func_code"]["file"] == body["func_code"]["file"]  # type: ignore[index]
    assert wire.ask("GET", f"{BASE}/{urn}/config").json["error_code"] == "FSS.1051"


class Owned(NamedTuple):
    """Resource that Terraform creates for a function. ``one`` is its path, with fields of the reply to its creation."""

    made: tuple[str, str, dict[str, Any]]  #: method, path and body of the creation
    one: str
    change: dict[str, Any]


STACK = "urn:fss:local-1:project1:function:default:stack"
DESTINATION = {"destination": "FunctionGraph", "param": json.dumps({"func_urn": urn_of("hello")})}
OWNED = {
    "trigger": Owned(
        ("POST", f"{FGS}/triggers/{STACK}:latest", {"trigger_type_code": "TIMER", "event_data": TIMER}),
        f"{FGS}/triggers/{STACK}:latest/TIMER/{{trigger_id}}",
        {"trigger_status": "DISABLED", "event_data": {**TIMER, "schedule": "0 0 1 * * ?"}},
    ),
    "alias": Owned(
        ("POST", f"{BASE}/{STACK}/aliases", {"name": "live", "version": "v1", "description": "first"}),
        f"{BASE}/{STACK}/aliases/{{name}}",
        {"version": "v1", "description": "then", "additional_version_weights": {"latest": 20}},
    ),
    "settings": Owned(
        ("PUT", f"{BASE}/{STACK}/async-invoke-config", {"max_async_retry_attempts": 2}),
        f"{BASE}/{STACK}/async-invoke-config",
        {"max_async_event_age_in_seconds": 60, "destination_config": {"on_failure": DESTINATION}},
    ),
    "event": Owned(
        ("POST", f"{BASE}/{STACK}/events", {"name": "first", "content": "e30="}),
        f"{BASE}/{STACK}/events/{{id}}",
        {"content": "eyJrIjogMX0="},
    ),
}


@pytest.mark.parametrize("kind", OWNED)
def test_what_terraform_makes_it_reads_changes_and_takes_away(wire: Wire, kind: str) -> None:
    made, one, change = OWNED[kind]
    if wire.ask("GET", f"{BASE}/{STACK}/config").status == 404:
        wire.engine.create("stack", ECHO)
        wire.ask("POST", f"{BASE}/{STACK}/versions", {"version": "v1"})

    created = wire.ask(*made)
    path = one.format(**created.json)
    read = wire.ask("GET", path)
    changed, reread = wire.ask("PUT", path, change), wire.ask("GET", path)
    deleted, gone = wire.ask("DELETE", path), wire.ask("GET", path)

    assert (created.status, changed.status, deleted.status, gone.status) == (
        201 if kind == "trigger" else 200,
        200,
        204,
        404,
    )
    assert holds(read.json, made[2])
    assert holds(reread.json, change)


def holds(shown: Any, given: Any) -> bool:
    """Return True if the reply contains everything that was sent; the engine may add fields."""
    if isinstance(given, dict):
        return all(name in shown and holds(shown[name], value) for name, value in given.items())
    return bool(shown == given)
