"""Details of the HTTP API that break real clients, with raw requests like curl's and Terraform's, and the vendor's SDK.

Terraform sends raw colons in URNs and ``event_data`` as one object, and reads lists until the marker no longer moves.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from msgspec import Struct

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.support.http_app import encoded, zipped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
    from huaweicloudsdkfunctiongraph import v2 as fg

FGS = f"/v2/{PROJECT}/fgs"
ECHO = "def handler(event, context):\n    return event\n"
TIMER = {"name": "tick", "schedule_type": "Cron", "schedule": "@every 1h30m"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


class Wire(Struct):
    engine: EngineProcess
    sdk: Any

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return self.engine.ask(method, path, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("wire")
    with pytest.MonkeyPatch.context() as patch, engine_on(folder / "data") as engine:
        patch.setenv("HOME", str(folder))  # the SDK writes a file to it
        builder = fg.FunctionGraphClient.new_builder().with_credentials(BasicCredentials("any", "any", PROJECT))
        sdk = builder.with_endpoint(f"http://127.0.0.1:{engine.port}").build()
        engine.create("hello", ECHO)
        try:
            yield Wire(engine=engine, sdk=sdk)
        finally:
            sdk._http_client._session.close()


@pytest.mark.parametrize(
    "urn",
    [
        urn_of("hello"),
        urn_of("hello").removesuffix(":latest"),
        "hello",
        "default:hello",
        f"{PROJECT}:default:hello",
        f"{PROJECT}:default:hello:latest",
    ],
)
def test_a_urn_may_be_whole_or_short_raw_or_encoded(wire: Wire, urn: str) -> None:
    raw = wire.ask("GET", f"{BASE}/{urn}/config")
    encoded = wire.ask("GET", f"{BASE}/{quote(urn, safe='')}/config")
    sdk = wire.sdk.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn))
    called = wire.ask("POST", f"{BASE}/{urn}/invocations", {"k": 1})

    assert {raw.json["func_urn"], encoded.json["func_urn"], sdk.func_urn} == {urn_of("hello")}
    assert (called.status, called.json) == (200, {"k": 1})


def test_lists_of_triggers_and_aliases_are_arrays_and_others_are_objects(wire: Wire) -> None:
    wire.engine.create("listed", ECHO)
    urn = urn_of("listed")
    empty = [wire.ask("GET", f"{FGS}/triggers/{urn}").json, wire.ask("GET", f"{BASE}/{urn}/aliases").json]
    wire.ask("POST", f"{BASE}/{urn}/aliases", {"name": "live", "version": "latest"})
    wire.ask("POST", f"{FGS}/triggers/{urn}", {"trigger_type_code": "TIMER", "event_data": TIMER})

    [alias] = wire.sdk.list_version_aliases(fg.ListVersionAliasesRequest(function_urn=urn)).body
    [trigger] = wire.sdk.list_function_triggers(fg.ListFunctionTriggersRequest(function_urn=urn)).body

    assert (empty, alias.name, trigger.trigger_type_code) == ([[], []], "live", "TIMER")
    assert wire.ask("GET", BASE).json.keys() == {"functions", "count", "next_marker"}


def test_the_code_of_a_record_is_a_number_and_its_times_have_no_zone(wire: Wire) -> None:
    wire.engine.create("fails", "def handler(event, context):\n    raise ValueError('no')\n")
    wire.engine.record("fails", wire.engine.accepted("fails"), wait=60)

    curl = {"User_Agent": "curl/8.5.0"}
    [raw] = wire.ask("GET", f"{BASE}/{urn_of('fails')}/async-invocations", **curl).json["invocations"]
    listing = fg.ListAsyncInvocationsRequest(function_urn=urn_of("fails"))
    [sdk] = wire.sdk.list_async_invocations(listing).invocations

    assert raw["error_code"] == sdk.error_code == 4002
    assert re.fullmatch(TIME, raw["start_time"])
    assert re.fullmatch(TIME, raw["end_time"])
    assert str(sdk.status) == raw["status"] == "FAIL"


@pytest.mark.parametrize("form", [list, dict])
def test_an_update_takes_event_data_as_list_and_as_object(wire: Wire, form: type) -> None:
    path = f"{FGS}/triggers/{urn_of('hello')}"
    made = wire.ask("POST", path, {"trigger_type_code": "TIMER", "event_data": TIMER}).json
    change = {"schedule": "@every 2h"}

    one = f"{path}/TIMER/{made['trigger_id']}"
    changed = wire.ask("PUT", one, {"event_data": TIMER | change if form is dict else [change]})
    gone = wire.ask("DELETE", one)

    assert (changed.status, changed.json["event_data"]) == (200, TIMER | change)
    assert gone.status == 204


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", f"{FGS}/nowhere", None, 404),
        ("PATCH", BASE, {}, 405),
        ("GET", f"{BASE}/absent/config", None, 404),
        ("GET", f"{BASE}/hello/async-invocations?limit=x", None, 400),
        ("POST", BASE, b"{", 406),
        ("POST", BASE, b"\xff", 406),
        ("POST", BASE, {}, 400),
        ("POST", f"{BASE}/absent/invocations-async", {}, 404),
        ("POST", f"{BASE}/absent/invocations", {}, 404),
        ("POST", f"{BASE}/hello/invocations-async", b"x" * (257 << 10), 413),
        ("POST", f"{BASE}/urn:fss:a:other:function:default:hello/invocations-async", {}, 403),
    ],
)
def test_every_error_has_a_request_id_and_the_shape_of_errors(
    wire: Wire, method: str, path: str, body: object, status: int
) -> None:
    reply = wire.ask(method, path, body)

    assert reply.status == status
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"])
    assert reply.headers["content-type"] == "application/json"
    assert re.fullmatch(r"FSS\.\d{4}", reply.json["error_code"])
    assert reply.json["error_msg"]


def test_the_sdk_reads_the_same_request_id_code_and_message(wire: Wire) -> None:
    with pytest.raises(ClientRequestException) as caught:
        wire.sdk.show_function_config(fg.ShowFunctionConfigRequest(function_urn="absent"))
    raw = wire.ask("GET", f"{BASE}/absent/config").json

    assert (caught.value.error_code, caught.value.error_msg) == (raw["error_code"], raw["error_msg"])
    assert re.fullmatch(r"[0-9a-f-]{36}", caught.value.request_id)


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


def test_pages_are_walked_by_their_markers(wire: Wire) -> None:
    for number in range(5):
        wire.engine.create(f"page{number}", ECHO, package="pages")

    pages, marker = list[list[str]](), 0
    while len(pages) < 9:
        request = fg.ListFunctionsRequest(marker=str(marker), maxitems="2", package_name="pages")
        page = wire.sdk.list_functions(request)
        raw = wire.ask("GET", f"{BASE}?marker={marker}&maxitems=2&package_name=pages").json
        assert [one.func_name for one in page.functions] == [one["func_name"] for one in raw["functions"]]
        pages.append([one.func_name for one in page.functions])
        if page.next_marker in (0, marker):
            break
        marker = page.next_marker

    assert pages == [["page0", "page1"], ["page2", "page3"], ["page4"], []]
    assert (raw["count"], raw["next_marker"]) == (5, 5)


def test_terraform_reads_records_until_the_marker_stands_still(wire: Wire) -> None:
    wire.engine.create("many", ECHO)
    sent = {wire.engine.accepted("many") for _ in range(5)}
    for request_id in sent:
        wire.engine.record("many", request_id, wait=60)

    seen: list[str] = []
    marker, terraform = "0", {"User_Agent": "terraform-provider-iac golangsdk/2.0.0"}
    while True:
        page = wire.ask("GET", f"{BASE}/{urn_of('many')}/async-invocations?limit=2&marker={marker}", **terraform).json
        seen += [one["request_id"] for one in page["invocations"]]
        after = page["next_marker"]
        if after in ("0", marker) or len(seen) > 9:
            break
        marker = after

    assert sorted(seen) == sorted(sent)


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


def test_versions_dependencies_and_reservations_are_made_and_taken_away_as_terraform_does(wire: Wire) -> None:
    wire.engine.create("pillar", ECHO)
    path, package = f"{BASE}/{urn_of('pillar').removesuffix(':latest')}", encoded(zipped(shared__py="VALUE = 1\n"))
    layer = {"name": "layer", "runtime": "Python3.10", "depend_type": "zip", "depend_file": package}

    first, second = (wire.ask("POST", f"{FGS}/dependencies/version", layer).json for _ in range(2))
    published = wire.ask("POST", f"{path}/versions", {"version": "v1", "description": "first"})
    shown = wire.ask("GET", f"{path}/versions").json["versions"][1]
    reserved = wire.ask("PUT", f"{path}:v1/reservedinstances", {"count": 1, "idle_mode": False}).json
    held = wire.ask("GET", f"{BASE}/reservedinstanceconfigs?function_urn={path.rpartition('/')[2]}").json
    released = wire.ask("PUT", f"{path}:v1/reservedinstances", {"count": 0}).json
    deleted = wire.ask("DELETE", f"{path}:v1")
    layers = f"{FGS}/dependencies/{first['dep_id']}/version"
    left = [wire.ask("DELETE", f"{layers}/{one['version']}").status for one in (first, second)]

    assert (published.status, shown["version"], shown["version_description"]) == (200, "v1", "first")
    assert (reserved["count"], released["count"], held["count"]) == (1, 0, 1)
    assert holds(held["reserved_instances"][0], {"qualifier_type": "version", "qualifier_name": "v1", "min_count": 1})
    assert (deleted.status, [one["version"] for one in wire.ask("GET", f"{path}/versions").json["versions"]]) == (
        204,
        ["latest"],
    )
    assert (second["version"], left, wire.ask("GET", layers).status) == (2, [204, 204], 404)


def test_the_rest_of_what_terraform_asks(wire: Wire) -> None:
    urn, param = urn_of("hello").removesuffix(":latest"), json.dumps({"func_urn": urn_of("sink")})
    settings = {
        "max_async_event_age_in_seconds": 3500,
        "max_async_retry_attempts": 2,
        "destination_config": {"on_failure": {"destination": "FunctionGraph", "param": param}},
    }

    kinds, features = wire.ask("GET", f"{FGS}/triggertypes"), wire.ask("GET", f"{FGS}/feature")
    put = wire.ask("PUT", f"{BASE}/{urn}/async-invoke-config", settings)
    got = wire.ask("GET", f"{BASE}/{urn}/async-invoke-config")
    reserved = wire.ask("PUT", f"{BASE}/{urn}/reservedinstances", {"count": 0, "idle_mode": False})
    tags = wire.ask("GET", f"/v2/{PROJECT}/functions/{urn}/tags")
    wire.ask("DELETE", f"{BASE}/{urn}/async-invoke-config")

    assert {"TIMER", "OBS", "KAFKA", "APIG"} <= set(kinds.json)
    assert features.json == {}
    assert (put.status, got.json.items() >= settings.items(), reserved.status) == (200, True, 200)
    assert tags.json == {"tags": [], "sys_tags": []}
