"""APIs created by the vendor's SDK and called by plain HTTP clients, on a running engine."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.acceptance import sdk
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.acceptance.sdk import (
    SDK_WARNINGS,
    BasicCredentials,
    Platform,
    SdkRequest,
    Signer,
    create,
    platform_on,
    urn_of,
)
from tests.acceptance.triggering import add, show
from tests.support.gateways import API
from tests.support.ports import free_port
from tests.support.programs import needs

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


#: Prints the names of the headers of two replies as a map has them that tells ``X-A`` from ``x-a``.
JAVA = """
class Names {
    public static void main(String[] urls) throws Exception {
        for (var url : urls) {
            var connection = (java.net.HttpURLConnection) new java.net.URL(url).openConnection();
            if (url.endsWith("/invocations")) {
                connection.setRequestProperty("Content-Type", "application/json");
                connection.setDoOutput(true);
                connection.getOutputStream().write("{\\"path\\": \\"/shop/echo\\"}".getBytes());
            }
            System.out.println(connection.getHeaderFields().keySet());
        }
    }
}
"""


@needs("javac")
def test_java_finds_headers_by_their_usual_spelling(platform: Platform, shop: str, tmp_path: Path) -> None:
    (tmp_path / "Names.java").write_text(JAVA)
    invoke = f"{platform.engine.url}/v2/{sdk.PROJECT}/fgs/functions/{urn_of('shop')}/invocations"
    command = ["java", str(tmp_path / "Names.java"), f"{shop}/echo", invoke]

    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)

    gateway, api = (set(line.strip("[]").split(", ")) for line in ran.stdout.splitlines())
    assert {"X-A", "Set-Cookie", "X-Cff-Request-Id", "X-Request-Id", "Content-Length", "Date"} <= gateway
    assert {"X-Cff-Request-Id", "X-Func-Err-Code", "X-Is-Func-Err", "Content-Type", "Content-Length", "Date"} <= api


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
    sdk.ask(platform, "CreateFunctionVersion", "shop", version="v1")
    sdk.ask(platform, "CreateVersionAlias", "shop", name="live", version="v1")
    urn = urn_of("shop", ":!live")
    made = add(platform, urn, "APIG", {**API, "name": "alias", "path": "/alias/text"})

    assert ask(url_of(platform, urn, made)).status == 200


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
    url: str = engine.trigger(name, "APIG", data)["event_data"]["invoke_url"]
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
