"""Controls of a function over HTTP: shown, changed one by one, checked, and gone with the function."""

from __future__ import annotations

import pytest

from engine.functions.controls import FunctionControls
from engine.model.controls import Controls
from engine.protocols.audit import Trace
from tests.support.http_app import Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")


PATH = f"/{urn_of()}/controls"


async def test_a_change_keeps_the_controls_that_it_does_not_name(api: Api) -> None:
    initial = (await api.send("GET", PATH)).json
    await api.send("PATCH", PATH, {"rate": 5, "burst": 10})
    changed = await api.send("PATCH", PATH, {"paused": True, "pause_reason": "migration"})

    assert changed.status == 200
    assert (await api.send("GET", PATH)).json == changed.json
    assert (initial["paused"], initial["rate"], initial["burst"]) == (False, 0.0, 1)
    assert {"rate": 5.0, "burst": 10, "paused": True, "pause_reason": "migration"}.items() <= changed.json.items()
    assert (await api.send("PATCH", PATH, {"paused": False})).json["pause_reason"] == ""


async def test_all_versions_of_a_function_share_its_controls(api: Api) -> None:
    await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
    await api.send("PATCH", f"/{urn_of(version=':v1')}/controls", {"recycle_requests": 7})

    assert (await api.send("GET", PATH)).json["recycle_requests"] == 7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"pause_reason": "why"}, "needs paused = true"),
        ({"rate": -1}, "rate"),
        ({"burst": 0}, "burst"),
        ({"recycle_memory": 101}, "recycle_memory"),
        ({"pasued": True}, "did you mean `paused`?"),
        ({"paused": True, "pause_reason": "x" * 257}, "pause_reason"),
    ],
)
async def test_an_invalid_control_is_refused_by_its_name(api: Api, body: dict[str, object], message: str) -> None:
    reply = await api.send("PATCH", PATH, body)

    assert reply.status == 400
    assert message in reply.json["error_msg"]
    assert (await api.send("GET", PATH)).json["paused"] is False


async def test_controls_are_read_again_after_a_restart_and_go_with_the_function(api: Api) -> None:
    await api.send("PATCH", PATH, {"paused": True})
    function_id = api.catalog.list(api.catalog.all()[0].project)[0].function_id
    restarted = FunctionControls(api.catalog, api.storage.resources)
    await restarted.load()
    api.catalog.changed.connect(restarted.follow)
    assert restarted.of(function_id).paused

    await api.send("DELETE", f"/{urn_of(version='')}")

    assert restarted.of(function_id) == Controls()
    assert not await api.storage.resources.load("controls")


async def test_a_change_is_announced_when_it_is_stored(api: Api) -> None:
    controls, announced = FunctionControls(api.catalog, api.storage.resources), list[tuple[int, bool]]()
    (function,) = api.catalog.all()
    controls.changed.connect(lambda function_id: announced.append((function_id, controls.of(function_id).paused)))
    urn = function.urn("local-1")
    await controls.change(urn, {"paused": True})
    await controls.change(urn, {"paused": True})

    assert announced == [(function.function_id, True)]


async def test_pause_and_resume_are_operations_of_their_own_and_leave_traces(api: Api) -> None:
    traces = list[Trace]()
    with api.audit.subscribed(traces.append):
        paused = await api.send("POST", f"/{urn_of()}/pause", {"reason": "migration"})
        again = await api.send("POST", f"/{urn_of()}/pause")
        resumed = await api.send("POST", f"/{urn_of()}/resume")
        await api.send("PATCH", PATH, {"rate": 2})

    assert [reply.json["paused"] for reply in (paused, again, resumed)] == [True, True, False]
    assert [reply.json["pause_reason"] for reply in (paused, again, resumed)] == ["migration", "", ""]
    assert [trace.operation for trace in traces] == [
        "PauseFunction",
        "PauseFunction",
        "ResumeFunction",
        "UpdateFunctionControls",
    ]
    assert {(trace.resource_type, trace.resource_name) for trace in traces} == {("function", "hello")}
    assert (await api.send("POST", f"/{urn_of()}/pause", {"why": "x"})).status == 400


async def test_a_list_marks_what_a_pause_keeps_waiting(api: Api) -> None:
    waiting, done = [(await api.invoke()).json["request_id"] for _ in range(2)]
    api.engine.finish(done)
    await api.send("POST", f"/{urn_of()}/pause")
    listed = (await api.send("GET", f"/{urn_of()}/async-invocations")).json["invocations"]

    assert {invocation["request_id"]: invocation.get("paused") for invocation in listed} == {waiting: True, done: None}
