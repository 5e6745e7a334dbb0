"""HTTP functions: requests to the server on port 8000, and the results made of its responses."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.apig.events import read_reply
from tests.support.bridging import DONE, READY, Answer, Bridge, needs_mapping, needs_network

pytestmark = needs_mapping

#: Server that answers with the request it received, except on some paths.
SERVER = """
import http.server, json, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0)).decode("latin-1")
        name = self.path.partition("?")[0].strip("/").replace("-", "_")
        act = getattr(self, name, None)
        if act:
            return act()
        told = {"method": self.command, "target": self.path, "headers": self.headers.items(), "body": body,
                "port": self.client_address[1]}
        self.reply(200, json.dumps(told).encode())

    do_POST = do_PUT = do_HEAD = do_GET

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("set-cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        self.wfile.write(body)

    def underscore(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n")
        self.wfile.write(b"User_Id: " + self.headers["user_id"].encode() + b"\\r\\n\\r\\n")

    def chunked(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        self.wfile.write(b"5\\r\\nhello\\r\\n7;a=b\\r\\n, world\\r\\n0\\r\\n\\r\\n")

    def until_close(self):
        self.wfile.write(b"HTTP/1.1 200 Fine\\r\\n\\r\\nto the end")
        self.close_connection = True

    def early(self):
        self.wfile.write(b"HTTP/1.1 103 Early Hints\\r\\nLink: x\\r\\n\\r\\n")
        self.reply(404, b"late")

    def nothing(self):
        self.wfile.write(b"HTTP/1.1 304 Not Modified\\r\\nContent-Length: 10\\r\\n\\r\\n")

    def head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\n\\r\\n")

    def nonsense(self):
        self.wfile.write(b"once upon a time\\r\\n\\r\\n")

    def hang_up(self):
        self.close_connection = True

    def close_later(self):
        self.reply(200, b"")
        self.close_connection = True

    def endless(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        while True:
            self.wfile.write(b"x" * 65536)

    def large(self):
        self.reply(200, b"x" * 4_718_000)

    def too_large(self):
        self.reply(200, b"x" * (5 << 20))

    def leave(self):
        os._exit(7)

    def deaf(self):
        self.server.shutdown()
        self.server.socket.close()
        self.reply(200, b"")

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever(0.01)
time.sleep(1000)
"""
FILES = {
    "bootstrap": f"exec {sys.executable} -I server.py",
    "server.py": SERVER,
}  # without a #! line, as users often write it


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with Bridge("http", tmp_path, FILES, maps_port=True) as running:
        assert running.answer()[:3] == (READY, 0, 0)
        yield running


def event(path: str, method: str = "GET", **fields: Any) -> str:
    return json.dumps({"httpMethod": method, "path": path, "headers": {}} | fields)


def reply(answer: Answer) -> Any:
    assert answer.kind == DONE, answer
    assert answer.code == 0, answer
    value = json.loads(answer.result)
    assert value["isBase64Encoded"] is True
    return value | {"body": base64.b64decode(value["body"]).decode()}


def told(answer: Answer) -> Any:
    return json.loads(reply(answer)["body"])


@pytest.mark.parametrize(
    ("path", "method", "fields", "target", "body"),
    [
        (
            "/a b/ä",
            "POST",
            {"queryStringParameters": {"q": "1 & 2", "many": ["a", "b"]}, "body": "straße"},
            "/a%20b/%C3%A4?q=1+%26+2&many=a&many=b",
            "straße".encode(),
        ),
        ("/", "PUT", {"body": "/wD+", "isBase64Encoded": True}, "/", b"\xff\x00\xfe"),
        ("/", "POST", {"body": "\ud800", "queryStringParameters": {"q": "\ud800"}}, "/?q=%3F", b"?"),
    ],
    ids=["text", "base64", "half a character"],
)
def test_method_path_query_and_body_are_those_of_the_event(
    bridge: Bridge, path: str, method: str, fields: dict[str, Any], target: str, body: bytes
) -> None:
    seen = told(bridge.ask(event(path, method, **fields)))

    assert (seen["method"], seen["target"], seen["body"].encode("latin-1")) == (method, target, body)


def test_headers_go_along_but_for_those_of_the_connection(bridge: Bridge) -> None:
    headers = {"host": "example.com", "x-many": ["1", "2"], "transfer-encoding": "chunked", "connection": "close"}

    seen = told(bridge.ask(event("/", headers=headers)))["headers"]

    lower = [(name.lower(), value) for name, value in seen]
    assert [pair for pair in lower if pair[0] in ("host", "x-many")] == [
        ("host", "example.com"), ("x-many", "1"), ("x-many", "2"),
    ]  # fmt: skip
    assert not {"transfer-encoding", "connection"} & {name for name, _ in lower}


def test_the_engine_adds_what_it_knows_and_nobody_can_forge_it(bridge: Bridge) -> None:
    context = {"apiId": "api", "requestId": "g-1", "stage": "RELEASE", "sourceIp": "10.0.0.1"}

    seen = told(bridge.ask(event("/", headers={"x-cff-request-id": "forged"}, requestContext=context)))["headers"]

    assert {name: value for name, value in seen if name.lower().startswith(("x-cff", "x-apig"))} == {
        "X-APIG-Api-Id": "api",
        "X-APIG-Request-Id": "g-1",
        "X-APIG-Source-Ip": "10.0.0.1",
        "X-APIG-Source-Stage": "RELEASE",
        "X-CFF-Request-Id": "r-1",
        "X-CFF-Memory": "128",
        "X-CFF-Timeout": "30",
        "X-CFF-Func-Version": "latest",
        "X-CFF-Func-Name": "f",
        "X-CFF-Project-Id": "p",
        "X-CFF-Package": "default",
        "X-CFF-Region": "local-1",
    }


def test_the_trace_context_of_the_request_replaces_that_in_the_event(bridge: Bridge) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = event("/", headers={"Traceparent": "old"})

    seen = told(bridge.ask(request, alias=f"live {trace}"))["headers"]
    unchanged = told(bridge.ask(request, alias="live"))["headers"]

    assert [value for name, value in seen if name.lower() == "traceparent"] == [trace]
    assert [value for name, value in unchanged if name.lower() == "traceparent"] == ["old"]


def test_a_reply_has_lists_of_headers(bridge: Bridge) -> None:
    value = reply(bridge.ask(event("/early")))

    assert (value["statusCode"], value["body"]) == (404, "late")
    assert value["headers"]["Set-Cookie"] == ["a=1", "b=2"]
    assert value["headers"]["Content-Length"] == ["4"]


@pytest.mark.parametrize(
    ("path", "method", "status", "body"),
    [
        ("/chunked", "GET", 200, "hello, world"),
        ("/until-close", "GET", 200, "to the end"),
        ("/nothing", "GET", 304, ""),
        ("/head", "HEAD", 200, ""),
    ],
)
def test_responses_end_in_several_ways(bridge: Bridge, path: str, method: str, status: int, body: str) -> None:
    value = reply(bridge.ask(event(path, method)))

    assert (value["statusCode"], value["body"]) == (status, body)
    assert "Transfer-Encoding" not in value["headers"]
    assert told(bridge.ask(event("/")))["target"] == "/"


def test_a_connection_is_used_again(bridge: Bridge) -> None:
    ports = {told(bridge.ask(event(f"/{number}")))["port"] for number in range(3)}

    assert len(ports) == 1


def test_a_connection_that_the_server_has_closed_is_replaced(bridge: Bridge) -> None:
    reply(bridge.ask(event("/close-later")))

    assert told(bridge.ask(event("/")))["method"] == "GET"


def test_raw_members_replace_those_that_they_repeat(bridge: Bridge) -> None:
    members: Any = {"rawRequest": "PUT /b?", "rawHeaders": [["x-cff-package", "forged"], ["a", "1"], ["A", ""]]}

    seen = told(bridge.ask(event("/a", headers={"a": "2"}, body="x", **members)))

    assert (seen["method"], seen["target"], seen["body"]) == ("PUT", "/b?", "x")
    assert seen["headers"][:3] == [["a", "1"], ["A", ""], ["Host", "127.0.0.1:8000"]]
    assert ["X-CFF-Package", "default"] in seen["headers"]
    assert ["x-cff-package", "forged"] not in seen["headers"]


def test_a_header_with_an_underscore_passes_in_both_directions(bridge: Bridge) -> None:
    raw: Any = {"rawRequest": "GET /underscore", "rawHeaders": [["user_id", "7"]]}

    answer = read_reply(bridge.ask(event("/underscore", **raw)).result)

    assert (answer.status, dict(answer.headers)[b"User_Id"]) == (200, b"7")


def test_another_spelling_does_not_replace_a_header_of_the_engine(bridge: Bridge) -> None:
    forged = [["x_cff_request_id", "forged"], ["X-CFF_Package", "forged"], ["content_length", "9"], ["a_b", "c"]]

    seen = told(bridge.ask(event("/", rawRequest="GET /", rawHeaders=forged)))

    assert [pair for pair in seen["headers"] if "_" in pair[0]] == [["a_b", "c"]]


NO_START = "rawRequest is not a method and a path; omit it and rawHeaders, or send both as the gateway"


def raw(*headers: object) -> str:
    return event("/", rawRequest="GET /", rawHeaders=headers)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("[1]", "an HTTP function takes events of an API gateway, with httpMethod, path, headers and body"),
        ("no json", "an HTTP function takes events of an API gateway, with httpMethod, path, headers and body"),
        (event("/", "GE T"), "httpMethod is 'GE T'"),
        (event("/", headers={"a": "b\r\nc: d"}), "the header a has more than one line"),
        (event("/", headers={"a:": "b"}), "'a:' is not a header name"),
        (event("/", headers=["a"]), "headers is not an object"),
        ("[" * 100_000, "an HTTP function takes events of an API gateway, with httpMethod, path, headers and body"),
        (event("/", body="%", isBase64Encoded=True), "isBase64Encoded is true, but the body is not base64"),
        *((event("/", rawRequest=start, rawHeaders=[]), NO_START) for start in (None, "GET", "GET a", "G /\r\nA: b")),
        (event("/", rawHeaders=[]), NO_START),
        (
            event("/", rawRequest="GET /"),
            "rawHeaders is not a list; omit it and rawRequest, or send both as the gateway",
        ),
        *(
            (raw(["a", text]), "the raw header a has characters that are not allowed")
            for text in ("\r\nb: c", "\0", "Ā")
        ),
        (raw(["a:", "b"]), "'a:' is not a header name"),
        *(
            (raw(headers), "rawHeaders must have a name and a value in each of its lists")
            for headers in ("a", ["a"], ["a", 1])
        ),
    ],
)
def test_an_event_that_is_no_request_is_told_why(bridge: Bridge, given: str, problem: str) -> None:
    answer = bridge.ask(given)

    assert (answer.code, answer.message) == (4002, f"function invocation exception, error: {problem}")
    assert answer.error["errorType"] == "BadEvent"


def test_the_reply_as_a_whole_may_have_6_mib(bridge: Bridge) -> None:
    assert len(reply(bridge.ask(event("/large")))["body"]) == 4_718_000


@pytest.mark.parametrize(
    ("path", "code", "kind", "words"),
    [
        ("/nonsense", 4002, "BadResponse", "'once upon a time' does not start an HTTP message"),
        ("/hang-up", 4002, "", "closed the connection before it had answered"),
        ("/too-large", 4004, "", "more than the 6291456 allowed"),
        ("/endless", 4004, "", ""),
    ],
)
def test_a_response_that_is_none_fails_its_request_only(
    bridge: Bridge, path: str, code: int, kind: str, words: str
) -> None:
    answer = bridge.ask(event(path))

    assert answer.code == code
    assert kind in answer.error["errorType"]
    assert words in answer.message
    assert told(bridge.ask(event("/")))["target"] == "/"


def test_a_server_that_exits_takes_its_instance_along(bridge: Bridge) -> None:
    bridge.invoke(event("/leave"))

    assert bridge.process.wait() == 7


def test_a_server_that_listens_no_more_ends_its_instance(bridge: Bridge) -> None:
    reply(bridge.ask(event("/deaf")))

    answer = bridge.ask(event("/hang-up"))

    assert "no longer accepts connections" in answer.message
    assert bridge.process.wait() == 1


@needs_network
def test_a_port_that_is_taken_is_no_place_for_a_function(tmp_path: Path) -> None:
    listen = """
import socket
taken = socket.create_server(("0.0.0.0", 8000))
taken.set_inheritable(True)
"""

    with Bridge("http", tmp_path, FILES, network=True, prelude=listen) as bridge:
        answer = bridge.answer()

    assert (answer.kind, answer.code) == (READY, 4201)
    assert "port 8000, on which the function's server must listen, is not free: Address already" in answer.message
