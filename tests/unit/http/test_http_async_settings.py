"""Asynchronous settings over HTTP, and the status log, which is always on."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from engine.logs.feed import StatusLines, WriteRows
from engine.logs.target import LogTarget
from tests.support.http_app import PROJECT, Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")

PATH = f"/{urn_of()}/async-invoke-config"
FULL = {
    "max_async_event_age_in_seconds": 60,
    "max_async_retry_attempts": 3,
    "destination_config": {
        "on_success": {"destination": "FunctionGraph", "param": f'{{"func_urn": "{urn_of("next", "")}"}}'},
        "on_failure": {"destination": "OBS", "param": '{"bucket": "b", "prefix": "p", "expires": 1}'},
    },
    "enable_async_status_log": True,
    "log_group_id": "g",
}


async def test_settings_come_back_as_they_were_put(api: Api) -> None:
    put = await api.send("PUT", PATH, FULL)
    shown = await api.send("GET", PATH)

    assert (put.status, shown.status, put.json) == (200, 200, shown.json)
    assert {name: put.json[name] for name in FULL} == FULL
    assert put.json["func_urn"] == urn_of()
    assert put.json["created_time"].endswith("Z")


RULES = [
    {"error_type": "Throttled", "max_retries": 8, "base": 5.0, "factor": 3.0, "longest": 100.0, "jitter": 0.0},
    {"code": 4010, "message_prefix": "Invoke", "max_retries": 0},
    {"max_retries": 3},
]


async def test_retry_rules_come_back_as_they_were_put(api: Api) -> None:
    put = await api.send("PUT", PATH, {"retry_rules": RULES})
    shown = await api.send("GET", PATH)
    listed = await api.send("GET", f"/{urn_of()}/async-invoke-configs")
    vendor = await api.send("PUT", PATH, {"max_async_retry_attempts": 0})
    removed = await api.send("PUT", PATH, {"retry_rules": []})

    assert put.json["retry_rules"] == shown.json["retry_rules"] == RULES
    assert listed.json["async_invoke_configs"][0]["retry_rules"] == RULES
    assert (vendor.json["retry_rules"], vendor.json["max_async_retry_attempts"]) == (RULES, 0)
    assert "retry_rules" not in removed.json


async def test_omitted_fields_have_the_documented_defaults(api: Api) -> None:
    await api.send("PUT", PATH, FULL)

    put = await api.send("PUT", PATH, {})

    assert (put.json["max_async_event_age_in_seconds"], put.json["max_async_retry_attempts"]) == (3600, 1)
    assert put.json["destination_config"] == {}
    assert "log_group_id" not in put.json
    empty = {"on_success": {}, "on_failure": {"destination": ""}}
    assert (await api.send("PUT", PATH, {"destination_config": empty})).json["destination_config"] == {}


async def test_deleted_settings_are_gone(api: Api) -> None:
    await api.send("PUT", PATH, {})

    deleted = await api.send("DELETE", PATH)
    after = [await api.send(method, PATH) for method in ("GET", "DELETE")]

    assert deleted.status == 204
    assert [(answer.status, answer.json["error_code"]) for answer in after] == [(404, "FSS.0404")] * 2


async def test_a_list_holds_the_settings_of_all_versions(api: Api) -> None:
    empty = await api.send("GET", f"{PATH}s")
    await api.send("PUT", PATH, FULL)
    full = await api.send("GET", f"{PATH}s?limit=0")

    assert (empty.json["count"], empty.json["async_invoke_configs"]) == (0, [])
    assert [item["func_urn"] for item in full.json["async_invoke_configs"]] == [urn_of()]
    assert full.json["page_info"] == {"next_marker": 1, "previous_marker": 0, "current_count": 1}


NEXT = {"on_success": {"destination": "FunctionGraph", "param": json.dumps({"func_urn": urn_of()})}}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"max_async_retry_attempts": 4}, "max_async_retry_attempts is 4"),
        ({"max_async_retry_attempts": -1}, "max_async_retry_attempts is -1"),
        ({"max_async_event_age_in_seconds": 0}, "max_async_event_age_in_seconds is 0"),
        ({"max_async_event_age_in_seconds": 86_401}, "max_async_event_age_in_seconds is 86401"),
        ({"max_async_retry_attempts": "1"}, "max_async_retry_attempts is '1'"),
        ({"destination_config": NEXT}, "destinations must not lead back here"),
        ({"retry_rules": [{"error_type": "E"}]}, "max_retries"),
        ({"retry_rules": [{"error_type": "E", "max_retries": 9}]}, "from 0 to 8"),
        ({"retry_rules": [{"errortype": "E", "max_retries": 1}]}, "errortype"),
        ({"retry_rules": [{"code": 150500, "max_retries": 1}]}, "such as 4002 or 4010"),
        ({"retry_rules": [{"code": 4208, "max_retries": 1}]}, "such as 4002 or 4010"),
        ({"retry_rules": [{"code": 77, "max_retries": 1}]}, "such as 4002 or 4010"),
        ({"retry_rules": [{"max_retries": 1}, {"code": 4010, "max_retries": 1}]}, "must be the last rule"),
        ({"retry_rules": [{"max_retries": 1, "base": 9, "longest": 5}]}, "must be at least 9, its base"),
        ({"retry_rules": [{"max_retries": 1, "base": 400_000}]}, "302400"),
        ({"retry_rules": [{"max_retries": 1, "code": 4002}] * 9}, "at most 8 rules"),
    ],
)
async def test_settings_that_cannot_be_are_refused(api: Api, body: object, problem: str) -> None:
    answer = await api.send("PUT", PATH, body)

    assert (answer.status, answer.json["error_code"]) == (400, "FSS.0400")
    assert problem in answer.json["error_msg"]
    assert (await api.send("GET", PATH)).status == 404


@pytest.mark.parametrize(
    ("destination", "field"),
    [
        ({"destination": "Pigeon"}, "destination"),
        ({"destination": "OBS", "param": "bucket"}, "param"),
        ({"destination": "OBS", "param": "[]"}, "param"),
        ({"destination": "FunctionGraph", "param": '{"func_urn": 7}'}, "param.func_urn"),
        ({"destination": "WEBHOOK", "param": '{"url": "/x"}'}, "param.url"),
        ({"destination": "FunctionGraph", "param": "{}"}, "param.func_urn"),
        ({"destination": "FunctionGraph", "param": '{"func_urn": "next"}'}, "param.func_urn"),
        ({"destination": "FunctionGraph", "param": '{"func_urn": "urn:x"}'}, "param.func_urn"),
        (
            {
                "destination": "FunctionGraph",
                "param": '{"func_urn": "urn:fss:local-1:other:function:default:f:latest"}',
            },
            "param.func_urn",
        ),
    ],
)
@pytest.mark.parametrize("condition", ["on_success", "on_failure"])
async def test_a_refused_destination_is_named_with_its_field(
    api: Api, condition: str, destination: object, field: str
) -> None:
    answer = await api.send("PUT", PATH, {"destination_config": {condition: destination}})

    assert (answer.status, answer.json["error_code"]) == (400, "FSS.0400")
    assert answer.json["error_msg"].partition(" is ")[0] == f"destination_config.{condition}.{field}"


async def test_the_status_log_is_created_again_only_for_those_who_enable_it(api: Api) -> None:
    asked: list[tuple[str, str, bool]] = []

    class Streams:
        plugin = "streams"

        async def create(self, project: str, target: LogTarget, *, again: bool) -> None:
            asked.append((project, target.group_name, again))

        async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None: ...

    with api.board.status_lines_stored_by(Streams()):
        await api.send("GET", "/async-status-log-detail")
        await api.send("POST", "/enable-async-status-logs")
        await api.send("PUT", PATH, {"enable_async_status_log": False})
        await api.send("PUT", PATH, {"enable_async_status_log": True})
        await api.send("PUT", PATH, {"enable_async_status_log": True, "max_async_retry_attempts": 99})
    await api.send("POST", "/enable-async-status-logs")

    assert asked == [(PROJECT, "functiond-async-status", again) for again in (False, True, True)]


async def test_the_status_log_is_always_on(api: Api) -> None:
    enabled = await api.send("POST", "/enable-async-status-logs")
    first, second = [await api.send("GET", "/async-status-log-detail") for _ in range(2)]

    assert (enabled.status, enabled.raw) == (200, b"")
    assert first.json.keys() == {"group_id", "group_name", "stream_id", "stream_name"}
    assert first.json == second.json
