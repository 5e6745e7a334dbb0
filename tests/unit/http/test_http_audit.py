"""Audit traces of the control plane: content, hidden secrets, and no cost without subscribers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import TaskStatus

from engine.config.plugin_registry import load_plugins
from engine.http.api.secrets import without_secrets
from engine.model.text import MASK
from engine.protocols import Plugin, PluginContext
from engine.protocols.audit import AuditTrail, Trace
from engine.resources.trigger_rules import marked
from tests.support.http_app import PROJECT, Api, encoded, urn_of
from tests.support.triggering import api_client, house


@pytest.fixture
def heard(api: Api) -> Iterator[list[Trace]]:
    traces: list[Trace] = []
    with api.audit.subscribed(traces.append):
        yield traces


async def test_a_change_leaves_a_trace_of_what_who_and_where(api: Api, heard: list[Trace]) -> None:
    await api.create(description="new")

    [trace] = heard
    assert (trace.operation, trace.code, trace.project) == ("CreateFunction", 200, PROJECT)
    assert (trace.resource_type, trace.resource_id, trace.resource_name) == ("function", urn_of(), "hello")
    assert (trace.method, trace.path, trace.source_ip, trace.user) == (
        "POST",
        f"/v2/{PROJECT}/fgs/functions",
        "127.0.0.1",
        "",
    )
    assert trace.request["description"] == "new"
    assert trace.response["func_urn"] == urn_of()
    assert trace.request_id == trace.trace_id


async def test_a_refusal_leaves_a_trace_with_its_code_and_request_id(api: Api, heard: list[Trace]) -> None:
    answer = await api.send("DELETE", f"/{urn_of('nobody')}?why=not")

    [trace] = heard
    assert (trace.operation, trace.code, trace.response) == ("DeleteFunction", 404, answer.json)
    assert trace.request_id == answer.headers["x-request-id"]
    assert trace.path.endswith(f"/{urn_of('nobody')}?why=not")


async def test_a_body_that_is_not_utf_8_is_refused_heard_or_not(api: Api, heard: list[Trace]) -> None:
    answer = await api.send("POST", "", b'{"description": "\xff"}')

    assert answer.status == 406
    assert [(trace.code, trace.request) for trace in heard] == [(406, None)]


async def test_each_kind_of_resource_is_named(api: Api, heard: list[Trace]) -> None:
    await api.create()
    timer = {"name": "tick", "schedule_type": "Rate", "schedule": "1m"}
    made = await api.send(
        "POST", f"/triggers/{urn_of()}", {"trigger_type_code": "TIMER", "event_data": timer}, base=f"/v2/{PROJECT}/fgs"
    )
    await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
    await api.send("POST", f"/{urn_of()}/aliases", {"name": "live", "version": "v1"})
    await api.send("POST", f"/{urn_of()}/events", {"name": "first", "content": encoded("{}")})
    await api.send("DELETE", f"/{urn_of()}/aliases/live")

    told = [(trace.operation, trace.resource_type, trace.resource_name) for trace in heard[1:]]
    assert told == [
        ("CreateFunctionTrigger", "trigger", "TIMER"),
        ("CreateFunctionVersion", "version", "v1"),
        ("CreateVersionAlias", "alias", "live"),
        ("CreateEvent", "event", "first"),
        ("DeleteVersionAlias", "alias", "live"),
    ]
    assert heard[1].resource_id == made.json["trigger_id"]


async def test_a_backup_leaves_a_trace_with_its_path(api: Api, heard: list[Trace], tmp_path: Path) -> None:
    path = f"{tmp_path}-backup"
    answer = await api.send("POST", f"/v2/{PROJECT}/fgs/backups", {"path": path}, base="")

    [trace] = heard
    assert (answer.status, trace.operation, trace.code) == (200, "CreateBackup", 200)
    assert (trace.resource_type, trace.resource_id) == ("backup", path)
    assert answer.json["error_msg"] == "this engine has no copy of its storage"  # which is in memory
    assert not await anyio.Path(f"{path}.partial").exists()


async def test_a_request_that_changes_nothing_leaves_no_trace(api: Api, heard: list[Trace]) -> None:
    await api.create()
    heard.clear()

    await api.send("GET", "")
    await api.invoke(body={})
    await api.send("POST", "/functions/resource-instances/filter", {"action": "filter"}, base=f"/v2/{PROJECT}")

    assert heard == []


async def test_secrets_and_code_stay_out_of_traces(api: Api, heard: list[Trace]) -> None:
    await api.create(user_data=json.dumps({"key": "s3same"}), encrypted_user_data=json.dumps({"door": "s3same"}))
    await api.send("PATCH", f"/{urn_of()}/config", {"encrypted_user_data": json.dumps({"door": "s3same", "a": "b"})})
    await api.send("PUT", f"/{urn_of()}/tracing", {"tracing_ak": "s3same", "tracing_sk": "s3same"})

    assert [(trace.operation, trace.code) for trace in heard[:2]] == [
        ("CreateFunction", 200),
        ("PatchFunctionConfig", 200),
    ]
    assert len(heard) == 3
    assert b"s3same" not in msgspec.json.encode(heard)


def test_every_secret_that_a_plugin_knows_is_masked() -> None:
    secrets = {name for plugin in load_plugins() for name in marked(plugin, "secret")}

    assert without_secrets(dict.fromkeys(secrets, "s3same")) == dict.fromkeys(secrets, MASK)
    assert len(secrets) >= 3


def test_long_texts_are_cut_at_any_depth() -> None:
    assert without_secrets([{"file": "x" * 5000}]) == [{"file": "x" * 1024 + "..."}]


def test_a_failing_listener_affects_no_other() -> None:
    audit, traces = AuditTrail(), list[Trace]()
    trace = msgspec.convert(dict.fromkeys(Trace.__struct_fields__, "") | {"time": 0.0, "code": 200}, Trace)

    with audit.subscribed(lambda _: 1 / 0), audit.subscribed(traces.append):  # type: ignore[arg-type]
        audit.publish(trace)

    assert (traces, audit.has_subscribers) == ([trace], False)


class Watchman:
    """Plugin service that subscribes to audit traces."""

    def __init__(self) -> None:
        self.heard: list[Trace] = []

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.audit.subscribed(self.heard.append):
            task_status.started()
            await anyio.sleep_forever()


async def test_a_plugin_gets_traces_of_changes_by_the_api(tmp_path: Path) -> None:
    watchman = Watchman()
    plugin = Plugin(kinds=("WATCH",), serve=lambda settings: watchman)
    async with house(tmp_path, [plugin]) as place, api_client(place) as client:
        await client.put(f"/v2/{PROJECT}/fgs/functions/hello/collect/true")

        [trace] = watchman.heard
        assert (trace.operation, trace.resource_name) == ("UpdateFunctionCollectState", "hello")
        assert trace.resource_id == urn_of(version="")
    assert not place.engine.audit.has_subscribers
