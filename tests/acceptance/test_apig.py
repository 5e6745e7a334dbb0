"""APIs created by the vendor's SDK and called by plain HTTP clients, on a running engine."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.acceptance.engine_process import PROJECT as ENGINE_PROJECT
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.acceptance.engine_process import urn_of as engine_urn
from tests.acceptance.sdk import (
    SDK_WARNINGS,
    BasicCredentials,
    Platform,
    SdkRequest,
    Signer,
    create,
    deploy,
    ended,
    fg,
    platform_on,
    urn_of,
)
from tests.acceptance.triggering import add, delete, show, update
from tests.support.bridging import needs_mapping
from tests.support.gateways import API
from tests.support.ports import free_port

pytestmark = SDK_WARNINGS

#: The path selects the action.
SOURCE = """
import base64, json, os, time

class Reply:
    def __init__(self):
        self.statusCode, self.headers, self.body, self.isBase64Encoded = 200, {}, "an object", False

def handler(event, context):
    way = event["path"].split("/")[2]
    if way == "echo":
        body = base64.b64encode(json.dumps(event).encode()).decode()
        return {"statusCode": 201, "headers": {"X-A": "b", "Set-Cookie": ["a=1", "b=2"]}, "body": body,
                "isBase64Encoded": True}
    if way == "text":
        return json.dumps({"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>é"})
    if way == "object":
        return Reply()
    if way == "raise":
        raise ValueError("a secret")
    if way == "die":
        os._exit(3)
    if way == "slow":
        time.sleep(600)
    return "nothing that a gateway could use"
"""
#: HTTP function that answers with the request it received.
SERVER = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = json.dumps([self.command, self.path, self.headers["X-A"], self.headers["Host"], body.hex()]).encode()
        self.send_response(418)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.send_header("X-Stage-Seen", self.headers["X-APIG-Source-Stage"])
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


KEY, SECRET = "AppKey", "the-secret-of-an-app"


class Reply(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, method=method, headers=named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return Reply(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    app = {"FUNCTIOND_PLUGINS__APIG__APPS__SHOP__KEY": KEY, "FUNCTIOND_PLUGINS__APIG__APPS__SHOP__SECRET": SECRET}
    settings = {"FUNCTIOND_PLUGINS__APIG__PORT": str(free_port()), "FUNCTIOND_GRACE": "0", **app}
    with platform_on(tmp_path_factory.mktemp("apig"), **settings) as running:
        create(running, "shop", SOURCE)
        yield running


@pytest.fixture(scope="module")
def shop(platform: Platform) -> str:
    """Create the function's API and return its URL."""
    made = add(platform, "shop", "APIG", {**API, "name": "shop", "path": "/shop", "match_mode": "SWA"})
    return url_of(platform, "shop", made)


def url_of(platform: Platform, function: str, trigger: Any) -> str:
    url: str = show(platform, function, trigger).event_data.invoke_url
    return url


def test_the_function_answers_and_its_reply_is_as_it_says(shop: str) -> None:
    reply = ask(f"{shop}/echo/x%20y?a=1&b=2&b=3", "POST", b"\x00\xff", X_B="c")

    event = reply.json
    assert (reply.status, reply.headers["X-A"], reply.headers.get_all("Set-Cookie")) == (201, "b", ["a=1", "b=2"])
    assert (event["path"], event["pathParameters"]) == ("/shop/echo/x%20y", {"": "echo/x y"})
    assert event["queryStringParameters"] == {"a": "1", "b": ["2", "3"]}
    assert (base64.b64decode(event["body"]), event["headers"]["x-b"]) == (b"\x00\xff", "c")
    assert event["requestContext"]["requestId"] == reply.headers["X-Request-Id"]
    assert len(reply.headers["X-CFF-Request-Id"]) == 36


def test_a_function_may_return_text_or_an_object(shop: str) -> None:
    text, other = ask(f"{shop}/text"), ask(f"{shop}/object")

    assert (text.status, text.headers["Content-Type"], text.body.decode()) == (200, "text/html", "<p>é")
    assert (other.status, other.body) == (200, b"an object")


def test_head_has_the_headers_only(shop: str) -> None:
    reply = ask(f"{shop}/text", "HEAD")

    assert (reply.status, reply.headers["Content-Length"], reply.body) == (200, "5", b"")


@pytest.mark.parametrize("way", ["raise", "die", "nothing"])
def test_what_the_function_does_wrong_is_told_as_its_own(shop: str, way: str) -> None:
    reply = ask(f"{shop}/{way}")

    assert (reply.status, reply.json["error_code"]) == (500, "FSS.1202")
    assert b"secret" not in reply.body
    assert reply.headers["X-CFF-Request-Id"]


def test_a_caller_waits_as_long_as_the_backend_may_take(platform: Platform) -> None:
    api = {**API, "name": "slow", "path": "/slow/slow", "func_info": {"timeout": 100}}
    made = add(platform, "shop", "APIG", api)

    reply = ask(url_of(platform, "shop", made))

    assert (reply.status, reply.json["error_code"]) == (504, "APIG.0201")


def test_a_mode_holds_from_the_next_request_on(platform: Platform) -> None:
    made = add(platform, "shop", "APIG", {**API, "name": "mode", "path": "/mode/text"})
    url, found = url_of(platform, "shop", made), []
    for mode in ["async", "sync"] * 5:
        update(platform, "shop", made, [{"func_info": {"invocation_type": mode}}])
        found.append(ask(url))

    assert [reply.status for reply in found] == [202, 200] * 5
    record = ended(platform, "shop", found[-2].json["request_id"])
    assert (record["status"], json.loads(record["result"])["statusCode"]) == ("SUCCESS", 200)


def test_an_api_is_there_and_gone_as_soon_as_it_is_made_and_deleted(platform: Platform) -> None:
    found = []
    for _ in range(5):
        made = add(platform, "shop", "APIG", {**API, "name": "brief", "path": "/brief/text"})
        url = url_of(platform, "shop", made)
        found.append(ask(url).status)
        delete(platform, "shop", made)
        found.append(ask(url).status)

    assert found == [200, 404] * 5


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_an_app_signs_with_the_vendors_signer(platform: Platform, kind: str) -> None:
    api = {**API, "name": f"app {kind}", "path": f"/{kind}", "match_mode": "SWA", "auth": "APP", "req_method": "POST"}
    url = urlsplit(url_of(platform, "shop", add(platform, "shop", "APIG", {**api, "path": f"/{kind[0]}"})))
    signer = Signer(BasicCredentials(KEY, SECRET, "any"))
    request = signer.sign(
        SdkRequest(
            method="POST",
            schema="http",
            host=url.netloc,
            resource_path=f"{url.path}/echo/x%20y",
            query_params=[("b", "2"), ("a", "é +"), ("b", "1")],
            header_params={"Content-Type": kind, "X-Stage": "RELEASE"},
            body="é".encode(),
        )
    )
    place = f"http://{url.netloc}{request.uri}"

    reply = ask(place, "POST", "é".encode(), **request.header_params)
    other = ask(place.replace("a=", "c="), "POST", "é".encode(), **request.header_params)

    assert (reply.status, other.status, other.json["error_code"]) == (201, 401, "APIG.0303")
    assert base64.b64decode(reply.json["body"]) == "é".encode()
    assert reply.json["queryStringParameters"]["a"] == "é +"
    assert not {"authorization", "x-sdk-date", "x-sdk-content-sha256"} & set(reply.json["headers"])


def test_an_api_may_call_an_alias(platform: Platform) -> None:
    version = fg.CreateFunctionVersionRequestBody(version="v1")
    platform.client.create_function_version(fg.CreateFunctionVersionRequest(function_urn=urn_of("shop"), body=version))
    alias = fg.CreateVersionAliasRequestBody(name="live", version="v1")
    platform.client.create_version_alias(fg.CreateVersionAliasRequest(function_urn=urn_of("shop"), body=alias))
    urn = urn_of("shop", ":!live")
    made = add(platform, urn, "APIG", {**API, "name": "alias", "path": "/alias/text"})

    assert ask(url_of(platform, urn, made)).status == 200


@needs_mapping
def test_an_http_function_is_a_server_behind_the_gateway(platform: Platform) -> None:
    boot = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} $RUNTIME_CODE_ROOT/server.py\n"
    deploy(platform, "web", "http", {"bootstrap": boot, "server.py": SERVER})
    made = add(platform, "web", "APIG", {**API, "path": "/web", "match_mode": "SWA", "func_info": {"timeout": 30_000}})

    reply = ask(url_of(platform, "web", made) + "/a%2Fb?x=1&x=2", "PUT", b"\x00\xff", X_A="b", Host="web.example.com")

    assert reply.status == 418
    assert (reply.headers["Content-Type"], reply.headers["X-Stage-Seen"]) == ("application/json", "RELEASE")
    assert reply.json == ["PUT", "/web/a%2Fb?x=1&x=2", "b", "web.example.com", "00ff"]


def test_an_api_is_found_again_by_the_next_engine(tmp_path: Path) -> None:
    port = str(free_port())
    with platform_on(tmp_path, FUNCTIOND_PLUGINS__APIG__PORT=port) as first:
        create(first, "shop", SOURCE)
        url = url_of(first, "shop", add(first, "shop", "APIG", {**API, "path": "/shop/text"}))
        before = ask(url).status
    with platform_on(tmp_path, FUNCTIOND_PLUGINS__APIG__PORT=port):
        assert (before, ask(url).status) == (200, 200)


#: Blocks on a FIFO: the writer sees when it runs and sets its result.
TOLD = """
import os

def handler(event, context):
    with open(os.path.join(event["queryStringParameters"]["at"], "told")) as told:
        return {"statusCode": 200, "body": told.read()}
"""


def published(engine: EngineProcess, name: str, source: str) -> str:
    """Create a function with an API and return the API's URL."""
    engine.create(name, source)
    data = {**API, "path": f"/{name}", "match_mode": "SWA", "func_info": {"timeout": 60_000}}
    body = {"trigger_type_code": "APIG", "event_data": data}
    made = engine.ask("POST", f"/v2/{ENGINE_PROJECT}/fgs/triggers/{engine_urn(name)}", body)
    url: str = made.json["event_data"]["invoke_url"]
    return url


def test_waiting_callers_are_answered_before_the_engine_ends_and_others_are_sent_away(tmp_path: Path) -> None:
    port = str(free_port())
    os.mkfifo(tmp_path / "told")
    settings = {"FUNCTIOND_PLUGINS__APIG__PORT": port, "FUNCTIOND_GRACE": "60"}
    with engine_on(tmp_path / "data", **settings) as engine, ThreadPoolExecutor(1) as pool:
        waits, probe = [published(engine, name, source) for name, source in (("told", TOLD), ("probe", SOURCE))]
        waiting = pool.submit(ask, f"{waits}?at={tmp_path}")
        with open(tmp_path / "told", "w") as told:  # returns when the function opens the FIFO
            engine.signal(signal.SIGTERM)
            while (refused := ask(f"{probe}/text")).status != 503:
                pass
            told.write("told")

        assert (waiting.result(60).status, waiting.result(60).body) == (200, b"told")
        assert int(refused.headers["Retry-After"]) > 0
        assert engine.wait() == 0
