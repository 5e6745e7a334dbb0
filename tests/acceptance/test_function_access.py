"""Functions in sandboxes: the network they get, calls of others with their token, and attacks from inside."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, ECHO, PROJECT, EngineProcess, engine_on, until, urn_of
from tests.support.programs import can_others_read, needs, needs_networks

pytestmark = needs("bwrap")
IS_ROOT = os.geteuid() == 0

#: Function that sends a request to the API, by default with its token to the address in its environment.
SENDER = """
import os, urllib.error, urllib.request

def handler(event, context):
    headers = {"Content-Type": "application/json"}
    if event.get("token", True):
        headers["X-Auth-Token"] = event.get("token") or context.getToken()
    url = (event.get("url") or os.environ["FUNCTIOND_URL"]) + event["path"]
    body = event["body"].encode() if "body" in event else None
    request = urllib.request.Request(url, body, headers, method=event.get("method", "GET"))
    try:
        reply = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        return {"status": reply.status, "text": reply.read().decode()}
"""
VARIABLES = """
import os

def handler(event, context):
    return {name: value for name, value in os.environ.items() if name.startswith("FUNCTIOND_")}
"""
CLIENT = """
from functiond import Client, InvocationFailed

def handler(event, context):
    with Client() as client:
        queued = client.enqueue("echo", {"queued": 1}, key="k")
        try:
            client.call("failing")
        except InvocationFailed as error:
            failure = str(error)
        return [client.call("echo", event), queued.request_id, failure]
"""
REWRITTEN = json.dumps({"func_name": "victim", "handler": "index.stolen", "timeout": 3, "memory_size": 128})
REWRITE = {"method": "PUT", "path": f"{BASE}/{urn_of('victim')}/config", "body": REWRITTEN}


@pytest.fixture(scope="module", params=["host", pytest.param("project", marks=needs_networks)])
def engine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    settings = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", "FUNCTIOND_EXECUTOR__NETWORK": request.param}
    with engine_on(tmp_path_factory.mktemp("access") / "data", **settings) as engine:
        for name, source in (
            ("victim", ECHO),
            ("echo", ECHO),
            ("failing", "def handler(event, context):\n    raise ValueError('no')\n"),
            ("sender", SENDER),
            ("variables", VARIABLES),
            ("client", CLIENT),
        ):
            engine.create(name, source)
        yield engine


def sent(engine: EngineProcess, **event: Any) -> tuple[int, str]:
    """Have the function send a request. Return the status and the text of the reply."""
    reply = engine.ask("POST", f"{BASE}/{urn_of('sender')}/invocations", event)
    assert reply.headers.get("x-is-func-err") != "true", reply
    return reply.json["status"], reply.json["text"]


def variables(engine: EngineProcess) -> dict[str, str]:
    told: dict[str, str] = engine.ask("POST", f"{BASE}/{urn_of('variables')}/invocations", {}).json
    return told


def test_a_function_calls_others_without_configuration(engine: EngineProcess) -> None:
    reply = engine.ask("POST", f"{BASE}/{urn_of('client')}/invocations", {"n": 1})

    echoed, request_id, failure = reply.json
    assert echoed == {"n": 1}
    assert engine.record("echo", request_id, wait=30)["status"] == "SUCCESS"
    assert "ValueError" in failure


def test_a_function_cannot_change_another(engine: EngineProcess) -> None:
    status, text = sent(engine, **REWRITE)

    assert (status, "the role invoke may not use" in text) == (403, True)
    assert sent(engine, **REWRITE, token=False)[0] == 401
    assert engine.ask("GET", f"{BASE}/{urn_of('victim')}/config").json["handler"] == "index.handler"


@pytest.mark.skipif(not IS_ROOT, reason="functions have the engine's own uid, unless the engine runs as root")
def test_a_function_cannot_change_another_at_the_port_of_clients(engine: EngineProcess) -> None:
    ready = engine.ask("GET", "/readyz").json
    assert ready["function_api"] == "token"
    if ready["network"] == "project":
        reply = engine.ask("POST", f"{BASE}/{urn_of('sender')}/invocations", REWRITE | {"url": engine.url})
        assert "Connection refused" in reply.json["errorMessage"]
        return
    for url in (engine.url, f"http://[::1]:{engine.port}"):
        status, text = sent(engine, **REWRITE, url=url, token=False)
        assert (status, "FUNCTIOND_TOKEN" in text) == (401, True)
        assert sent(engine, **REWRITE, url=url)[0] == 403
    assert sent(engine, path="/console/", url=engine.url, token=False)[0] == 401
    assert engine.ask("GET", f"{BASE}/{urn_of('victim')}/config").json["handler"] == "index.handler"


def test_the_token_is_for_one_project(engine: EngineProcess) -> None:
    status, text = sent(engine, method="POST", path=f"/v2/other/fgs/functions/{urn_of('echo')}/invocations", body="{}")

    assert (status, f"for project {PROJECT} only" in text) == (403, True)


def test_the_port_of_functions_serves_the_api_only(engine: EngineProcess) -> None:
    made = engine.trigger("echo", "WEBHOOK", {"name": "pushes", "secret": "0123456789abcdef"})

    for path in (f"/triggers/webhook/{made['trigger_id']}", "/console/"):
        assert engine.ask("GET", path).status != 404
        assert sent(engine, path=path)[0] == 404
        assert sent(engine, path=path, token=False)[0] == 401


def test_users_cannot_mix_the_variables_with_their_own(engine: EngineProcess) -> None:
    engine.create(
        "own", VARIABLES, user_data=json.dumps({"FUNCTIOND_URL": "http://192.0.2.1", "FUNCTIOND_PROJECT": "x"})
    )
    own = engine.ask("POST", f"{BASE}/{urn_of('own')}/invocations", {}).json

    assert own["FUNCTIOND_URL"] == "http://192.0.2.1"
    assert "FUNCTIOND_TOKEN" not in own
    assert variables(engine)["FUNCTIOND_PROJECT"] == PROJECT


def test_the_token_ends_with_its_instance_and_is_not_logged(engine: EngineProcess) -> None:
    told = variables(engine)
    other = EngineProcess(engine.data)
    other.port, other.headers = int(told["FUNCTIOND_URL"].rpartition(":")[2]), {"X-Auth-Token": told["FUNCTIOND_TOKEN"]}
    path = f"{BASE}/{urn_of('echo')}/invocations"

    assert other.ask("POST", path, {}).status == 200
    assert (
        engine.ask(
            "PUT",
            f"{BASE}/{urn_of('variables')}/config",
            json.loads(REWRITTEN) | {"func_name": "variables", "runtime": "Python3.10"},
        ).status
        == 200
    )
    refused = until(lambda: (reply := other.ask("POST", path, {})).status == 401 and reply)
    assert "not that of a running instance" in refused.json["error_msg"]
    assert not any(told["FUNCTIOND_TOKEN"] in line for line in engine.log)


@pytest.mark.skipif(not IS_ROOT, reason="needs root, which becomes another user")
@pytest.mark.skipif(not can_others_read(Path(__file__).parent), reason="other users cannot read these sources")
def test_the_engine_of_an_ordinary_user_says_that_it_cannot_tell_functions() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.chown(folder, 65534, 65534)
        # Where everyone may open /dev/net/tun, an ordinary user has networks of projects, too.
        settings = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", "FUNCTIOND_EXECUTOR__NETWORK": "host"}
        engine = EngineProcess(folder / "data", **settings)
        engine.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        try:
            assert engine.start().ask("GET", "/readyz").json["function_api"] == "open"
            assert any("functions need no token" in line for line in engine.log)
        finally:
            engine.close()
    finally:
        shutil.rmtree(folder)


def test_without_rights_functions_get_no_token(tmp_path: Path) -> None:
    settings = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", "FUNCTIOND_EXECUTOR__FUNCTION_ROLE": "none"}
    settings |= {"FUNCTIOND_EXECUTOR__NETWORK": "host"}
    with engine_on(tmp_path / "data", **settings) as engine:
        engine.create("variables", VARIABLES)
        engine.create("sender", SENDER)

        assert variables(engine).keys() == {"FUNCTIOND_ENGINE", "FUNCTIOND_INSTANCE"}
        if IS_ROOT:
            assert sent(engine, path=BASE, url=engine.url, token="guessed")[0] == 401


@needs_networks
def test_a_new_data_directory_gets_networks_and_an_older_one_keeps_the_host_s_until_it_is_set(tmp_path: Path) -> None:
    def network(folder: str, name: str = "", **settings: str) -> object:
        with engine_on(tmp_path / folder, FUNCTIOND_EXECUTOR__ISOLATION="auto", **settings) as engine:
            if name:
                engine.create(name, ECHO)
            return engine.ask("GET", "/readyz").json["network"]

    assert [network("new", "first"), network("new")] == ["project", "project"]
    assert network("old", "first", FUNCTIOND_EXECUTOR__NETWORK="host") == "host"  # as all were before
    assert network("old") == "host"
    assert network("old", FUNCTIOND_EXECUTOR__NETWORK="project") == "project"
