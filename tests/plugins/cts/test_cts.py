"""Traces that call functions: selection, content, and traces that are passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import structlog.testing
from anyio.abc import TaskStatus
from msgspec.structs import replace

from engine import TriggerContext
from engine.errors import InvalidField
from engine.protocols.audit import Trace
from plugins.cts import plugin as cts
from plugins.cts.source import WAITING, CtsTrigger
from plugins.cts.traces import Wanted, own, read_pushed
from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house, until
from tests.support.work import calls

FUNCTIONS = f"/v2/{PROJECT}/fgs/functions"
PUSHED = {"trace_id": "1", "service_type": "ECS", "resource_type": "ecs", "trace_name": "stopServer", "code": "200"}


def left(**changes: Any) -> Trace:
    given: dict[str, Any] = {
        "trace_id": "t",
        "time": 1767225600.5,
        "operation": "CreateFunction",
        "project": PROJECT,
        "resource_type": "function",
        "resource_id": "urn",
        "resource_name": "hello",
        "code": 200,
        "user": "AK",
        "source_ip": "192.0.2.9",
        "request_id": "r",
        "method": "POST",
        "path": FUNCTIONS,
        "request": {"func_name": "hello"},
        "response": None,
    }
    return Trace(**{**given, **changes})


async def audit(place: House, *operations: str) -> None:
    trigger = await place.create("CTS", name="audit", operations=list(operations))
    await until(lambda: place.state(trigger).state == "running")


async def events(place: House, count: int) -> list[Any]:
    """Return the payloads as soon as there are ``count``."""
    while len(accepted := await place.events()) < count:  # noqa: ASYNC110  (the journal sets no event for accepted requests)
        await anyio.sleep(0.005)
    return accepted


async def push(client: httpx.AsyncClient, content: object, **headers: str) -> httpx.Response:
    return await client.post(
        "/triggers/cts", json=content, headers={n.replace("_", "-"): v for n, v in headers.items()}
    )


@pytest.mark.parametrize(
    ("operation", "has"),
    [
        ("ECS:ecs:stopServer", True),
        ("ecs:disk;ECS:startserver;stopserver", True),
        ("ECS:e*:stop*", True),
        ("ECS:disk:stopServer", False),
        ("EVS:ecs:stopServer", False),
        ("ECS:ecs:stop", False),
    ],
)
def test_a_trigger_wants_services_resources_and_actions(operation: str, has: bool) -> None:
    assert Wanted([operation]).has("ECS", "ecs", "stopServer") is has


@pytest.mark.parametrize("kind", ["ecs", "n24999", "x7y"])
def test_a_trace_is_not_compared_with_each_of_a_trigger_s_names(kind: str) -> None:
    names = ";".join(f"n{number}" for number in range(25_000))
    wanted = Wanted([f"ECS:{names};x*y:stopServer"])

    with calls() as made:
        has = wanted.has("ECS", kind, "stopServer")

    assert has is (kind != "ecs")
    assert made() < 50


@pytest.mark.parametrize("name", ["publishFunctionVersion", "CreateFunctionVersion"])
def test_own_operations_have_the_platform_s_name_and_that_of_the_sdk(name: str) -> None:
    wanted = Wanted([f"FunctionGraph:version:{name}"])

    assert wanted.has_own(left(operation="CreateFunctionVersion", resource_type="version"))
    assert not wanted.has_own(left())


@pytest.mark.parametrize("operation", ["UpdateFunctionCode", "UpdateFunctionConfig", "PatchFunctionConfig"])
def test_each_change_of_a_function_has_the_platform_s_name(operation: str) -> None:
    wanted = Wanted(["FunctionGraph:function:modifyFunctionMetadata"])

    assert wanted.has_own(left(operation=operation))
    assert own(left(operation=operation))["trace_name"] == "modifyFunctionMetadata"


@pytest.mark.parametrize(("code", "status"), [(201, "normal"), (404, "warning"), (500, "incident")])
def test_an_own_trace_tells_who_did_what_and_how_it_went(code: int, status: str) -> None:
    trace = own(left(code=code))

    assert (trace["time"], trace["code"], trace["trace_status"]) == (1767225600500, code, status)
    assert (trace["service_type"], trace["trace_name"], trace["trace_type"]) == (
        "FunctionGraph",
        "createFunction",
        "ApiCall",
    )
    assert (trace["resource_name"], trace["user"]["name"], trace["source_ip"]) == ("hello", "AK", "192.0.2.9")
    assert (trace["request"], trace["response"]) == ({"func_name": "hello"}, {})


async def test_what_is_done_over_the_api_calls_the_function(tmp_path: Path) -> None:
    async with house(tmp_path, [cts]) as place, api_client(place) as client:
        before = place.engine.audit.has_subscribers
        await audit(place, "FunctionGraph:function:DeleteFunction")
        pushed = await push(client, PUSHED)
        await client.put(f"{FUNCTIONS}/{place.urn.function}/config", json={})
        await client.delete(f"{FUNCTIONS}/{place.urn.function.replace('hello', 'nobody')}")

        [event] = await events(place, 1)
        assert (event["cts"]["trace_name"], event["cts"]["code"]) == ("deleteFunction", 404)
        assert event["cts"]["resource_name"] == "nobody"
        assert (before, place.engine.audit.has_subscribers) == (False, True)
        assert pushed.json() == {"accepted": 0}


async def test_a_trigger_hears_traces_from_when_it_is_stored(tmp_path: Path) -> None:
    opened = anyio.Event()

    class StartsLate(CtsTrigger):
        async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
            await opened.wait()
            await super().run(context, task_status=task_status)

    async with house(tmp_path, [replace(cts, trigger=StartsLate)]) as place, api_client(place) as client:
        await place.create("CTS", name="audit", operations=["FunctionGraph:function:*", "ECS:ecs:*"])
        pushed = await push(client, PUSHED)
        place.engine.audit.publish(left(project="other", trace_id="of another project"))
        place.engine.audit.publish(left(trace_id="own"))
        opened.set()

        assert pushed.json() == {"accepted": 1}
        assert [event["cts"]["trace_id"] for event in await events(place, 2)] == ["1", "own"]


async def test_a_call_leaves_no_trace_so_none_leads_to_the_next(tmp_path: Path) -> None:
    async with house(tmp_path, [cts]) as place, api_client(place) as client:
        await audit(place, "FunctionGraph:*:*")
        called = await client.post(f"{FUNCTIONS}/{place.urn}/invocations-async", json={})
        await client.delete(f"{FUNCTIONS}/{place.urn.function.replace('hello', 'nobody')}")

        assert called.status_code == 202
        assert [event.get("cts", {}).get("trace_name") for event in await events(place, 2)] == [None, "deleteFunction"]


async def test_own_traces_wait_for_room_up_to_a_bound(tmp_path: Path) -> None:
    async with house(tmp_path, [cts], queue__function_rows=1) as place:
        await audit(place, "FunctionGraph:function:*")
        with structlog.testing.capture_logs() as logs:
            for number in range(WAITING + 2):
                place.engine.audit.publish(left(trace_id=str(number)))
        [trigger] = place.engine.resources.triggers.all()
        await until(lambda: "backlog" in place.state(trigger).problem)

        dropped = [line["trace"] for line in logs if "dropped" in line["event"]]
        assert dropped == [str(WAITING), str(WAITING + 1)]
        await place.delete(trigger)
        await until(lambda: place.engine.sources.state(trigger.id) is None)
        service: Any = place.engine.plugins.of(cts).service
        assert service.inboxes == {}


async def test_the_same_trace_pushed_twice_calls_once_and_one_that_lacks_something_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path, [cts]) as place, api_client(place) as client:
        await audit(place, "ECS:ecs:stopServer")
        replies = [await push(client, {"traces": [PUSHED]}), await push(client, [{**PUSHED, "code": "500"}])]

        assert [reply.status_code for reply in replies] == [202, 202]
        for name in ("trace_id", "service_type", "resource_type", "trace_name"):
            reply = await push(client, {**PUSHED, name: ""})
            assert (reply.status_code, name in reply.json()["error_msg"]) == (400, True)
        assert await place.events() == [{"cts": PUSHED}]


@pytest.mark.parametrize(
    "body", [b"no json", b"5", b"[5]", b'{"trace_id":"\xff"}', json.dumps([PUSHED] * 1001).encode()]
)
def test_what_is_no_trace_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidField):
        read_pushed(body)


async def test_traces_are_pushed_by_who_has_credentials_to_triggers_of_their_project(tmp_path: Path) -> None:
    tokens = [{"token": f"token-of-{project}-123456", "project": project} for project in (PROJECT, "other")]
    async with (
        house(tmp_path, [cts], auth__tokens=tokens) as place,
        api_client(place, authenticator=place.engine.authenticator) as client,
    ):
        await audit(place, "ECS:ecs:stopServer")
        replies = [await push(client, PUSHED, x_auth_token=token["token"]) for token in tokens]
        nobody = await push(client, PUSHED)
        read = await client.get("/triggers/cts", headers={"x-auth-token": tokens[0]["token"]})

        assert [reply.status_code for reply in (*replies, nobody, read)] == [202, 404, 401, 405]
