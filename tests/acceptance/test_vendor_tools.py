"""Requests of the vendor's tools besides those to functions, with credentials of two projects and a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.engine_process import ECHO, PROJECT, REGION, EngineProcess, engine_on, until, urn_of
from tests.acceptance.sdk import SDK_WARNINGS, BasicCredentials, fg, sdk_home

pytestmark = SDK_WARNINGS

KEY = "[[keys]]\naccess = 'AK1'\nsecret = 'a-secret-of-16-or-more'\nproject = '{}'\n"
TOKEN = "[[tokens]]\ntoken = 'the-token-of-{0}'\nproject = '{0}'\n"
TRIGGERS = f"/v2/{PROJECT}/fgs/triggers/{urn_of('echo')}"
#: Event data as Serverless Devs sends it.
API = {"type": 1, "name": "tool", "path": "/echo", "protocol": "HTTPS", "req_method": "ANY", "match_mode": "SWA"}
API |= {"env_id": "DEFAULT_ENVIRONMENT_RELEASE_ID", "env_name": "RELEASE", "auth": "IAM", "backend_type": "FUNCTION"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "keys.toml").write_text(KEY.format(PROJECT) + TOKEN.format(PROJECT) + TOKEN.format("other"))
    (folder / "keys.toml").chmod(0o600)
    settings = {"FUNCTIOND_AUTH__FILE": str(folder / "keys.toml"), "FUNCTIOND_PLUGINS__APIG__PORT": "0"}
    with engine_on(folder / "data", **settings) as engine:
        engine.headers = {"X-Auth-Token": f"the-token-of-{PROJECT}"}
        engine.create("echo", ECHO, user_data='{"A": 1}')
        yield engine


def test_a_client_of_the_sdk_finds_its_project(engine: EngineProcess, tmp_path: Path) -> None:
    from huaweicloudsdkcore.region.region import Region

    url = f"http://127.0.0.1:{engine.port}"
    credentials = BasicCredentials("AK1", "a-secret-of-16-or-more").with_iam_endpoint(url)
    builder = fg.FunctionGraphClient.new_builder().with_credentials(credentials).with_region(Region(REGION, url))
    with sdk_home(tmp_path), closing((client := builder.build())._http_client._session):
        assert client.list_functions(fg.ListFunctionsRequest()).count == 1
    domains = engine.ask("GET", "/v3/auth/domains").json["domains"]
    assert (domains[0]["id"], engine.ask("GET", "/v3/projects/x").status) == (PROJECT, 403)


def test_an_api_is_created_from_the_group_and_changed_as_the_manual_says(engine: EngineProcess) -> None:
    [group] = engine.ask("GET", "/v1.0/apigw/api-groups").json["groups"]
    named = engine.ask("POST", "/v1.0/apigw/api-groups", {"name": "mine", "remark": "of a tool"}).json
    data = {**API, "group_id": named["id"], "sl_domain": named["sl_domain"], "function_info": {"timeout": 4000}}
    api = engine.trigger("echo", "APIG", data)["event_data"]
    without = {**API, "name": "bare", "path": "/bare", "group_id": group["id"]}
    bare = engine.trigger("echo", "APIG", without)["event_data"]
    path = f"/v2/{PROJECT}/apigw/instances/any/apis/{api['api_id']}"
    shown = engine.ask("GET", path).json

    change = {**shown, "req_method": "POST", "func_info": {**shown["func_info"], "invocation_type": "async"}}
    changed = engine.ask("PUT", path, change).json

    groups = engine.ask("GET", "/v1.0/apigw/api-groups").json["groups"]
    assert ([each["id"] for each in groups], bare["func_info"]["timeout"]) == (["default", "mine"], 5000)
    assert (shown["req_uri"], shown["func_info"]["timeout"], shown["auth_type"]) == ("/echo", 4000, "IAM")
    assert (changed, changed["func_info"]["invocation_type"]) == (change, "async")
    [stored] = [each for each in engine.ask("GET", TRIGGERS).json if each["event_data"]["name"] == "tool"]
    assert (stored["event_data"]["func_info"], stored["event_data"]["req_method"]) == (changed["func_info"], "POST")
    statuses = [engine.ask("PUT", path, body).status for body in ({"type": 9}, {"a\r\nb": 1})]
    assert [*statuses, engine.ask("GET", f"{path}x").status] == [400, 200, 404]


def test_events_put_to_a_channel_reach_the_triggers_of_the_project(engine: EngineProcess) -> None:
    refused = {"trigger_type_code": "EVENTGRID", "event_data": {"channel_id": "c", "invocation_type": "sync"}}
    assert engine.ask("POST", TRIGGERS, refused).json["error_code"] == "FSS.0400"
    trigger = engine.trigger("echo", "EVENTGRID", {"channel_id": "c", "channel_name": "orders"})
    event = {"id": "1", "source": "shop", "specversion": "1.0", "type": "paid", "data": {"n": 1}}
    path = f"/v1/{PROJECT}/channels"
    put = engine.ask("POST", f"{path}/c/events", {"events": [event, {**event, "id": "2", "specversion": "2"}]}).json
    again = engine.ask("POST", "/triggers/eventgrid/c", event, headers={"Content-Type": "application/cloudevents+json"})

    assert (put["failed_count"], put["events"][0], put["events"][1]["event_id"]) == (1, {"event_id": "1"}, "2")
    assert (again.status, engine.ask("GET", path).json["items"][0]["name"]) == (202, "orders")
    runs = f"/v2/{PROJECT}/fgs/functions/{urn_of('echo')}/async-invocations?trigger_id={trigger['trigger_id']}"
    assert until(lambda: engine.ask("GET", runs).json["invocations"])[0]["status"] in ("WAIT", "RUNNING", "SUCCESS")
    assert engine.ask("GET", runs).json["count"] == 1
    token = {"X-Auth-Token": "the-token-of-other"}
    assert engine.ask("POST", "/v1/other/channels/c/events", {"events": [event]}, headers=token).status == 404
