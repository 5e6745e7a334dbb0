"""HTTP functions behind a gateway: bytes of requests that reach the function's server, and of its responses."""

from __future__ import annotations

import base64
import json
import shlex
import socket
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.sdk import SDK_WARNINGS, Platform, deploy, platform_on
from tests.acceptance.sdk import call as invoke
from tests.acceptance.triggering import add, show
from tests.support.bridging import needs_mapping
from tests.support.gateways import API
from tests.support.ports import free_port

pytestmark = [
    needs_mapping,
    *SDK_WARNINGS,
]

#: Server that answers with the bytes that it received, and with the value of the header X-U in a header.
SERVER = """
import re, socketserver

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            head = b""
            while not head.endswith(b"\\r\\n\\r\\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            length = int(re.search(rb"(?i)\\r\\ncontent-length: ?(\\d+)", head)[1])
            seen = head + self.rfile.read(length)
            named = re.search(rb"(?i)\\r\\nx-u: ?([^\\r]*)", head)
            extra = b"X-U: " + named[1] + b"\\r\\nx-u: second\\r\\n" if named else b""
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n%b\\r\\n%b" % (len(seen), extra, seen))

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server(("127.0.0.1", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    settings = {
        "FUNCTIOND_PLUGINS__APIG__PORT": str(free_port()),
        "FUNCTIOND_GRACE": "0",
        "FUNCTIOND_PLUGINS__APIG__APPS__SHOP__APP_CODE": "the-code-of-one-app",
    }
    with platform_on(tmp_path_factory.mktemp("apig"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def port(platform: Platform) -> int:
    """Publish the function and return the gateway's port."""
    boot = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} $RUNTIME_CODE_ROOT/server.py\n"
    deploy(platform, "web", "http", {"bootstrap": boot, "server.py": SERVER})
    api = {**API, "match_mode": "SWA", "func_info": {"timeout": 30_000}}
    made = add(platform, "web", "APIG", {**api, "name": "web", "path": "/web"})
    add(platform, "web", "APIG", {**api, "name": "app", "path": "/app", "auth": "APP"})
    number: int = urlsplit(show(platform, "web", made).event_data.invoke_url).port
    return number


def exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Send a request and return head and body of the response. The request must end its connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), received
    return head, body


def seen_lines(body: bytes) -> list[bytes]:
    """Return the lines that the function's server received from the client, without those that the engine added."""
    added = (b"x-apig-", b"x-cff-", b"x-forwarded-", b"x-real-ip:", b"content-length:")
    return [line for line in body.partition(b"\r\n\r\n")[0].split(b"\r\n") if not line.lower().startswith(added)]


def call(platform: Platform, name: str, event: dict[str, Any]) -> bytes:
    """Invoke an HTTP function through the API and return the body of its response."""
    return base64.b64decode(json.loads(invoke(platform, name, event).result)["body"])


TARGETS = b"/web?e /web? /web?? /web?e&f=&=g&&a=b /web/%c3%A4%2F/.?q=a+b%20c% /web?a=/?:@&a=%zz /web//x;y?%".split()


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_reaches_the_server_as_it_was_sent(port: int, target: bytes) -> None:
    _, body = exchange(port, b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % target)

    assert seen_lines(body)[0] == b"GET %b HTTP/1.1" % target


def test_a_target_in_absolute_form_reaches_the_server_as_path_and_host(port: int) -> None:
    _, body = exchange(port, b"GET http://h.example/web?e HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\n\r\n")

    assert seen_lines(body) == [b"GET /web?e HTTP/1.1", b"host: h.example"]


def test_header_bytes_number_and_order_reach_the_server_as_they_were_sent(port: int) -> None:
    utf, latin = "Grüße à".encode(), "Grüße".encode("latin-1")
    fields = [b"x-a: 1", b"x-u: " + utf, b"x-a: 2, 3", b"x-l: " + latin, b"cookie: a=1", b"cookie: b=2", b"x-a: "]

    _, body = exchange(
        port, b"GET /web HTTP/1.1\r\nhost: H.example:81\r\n%b\r\nConnection: close\r\n\r\n" % b"\r\n".join(fields)
    )

    sent = [field for field in fields if not field.startswith(b"cookie")]
    assert seen_lines(body)[1:] == [b"host: H.example:81", *sent, b"cookie: a=1; b=2"]


def test_headers_of_the_connection_and_credentials_do_not_reach_the_server(port: int) -> None:
    request = (
        b"POST /app HTTP/1.1\r\nhost: h\r\nx-apig-appcode: the-code-of-one-app\r\nconnection: close, te\r\nte: trailers"
        b"\r\nkeep-alive: 5\r\nx-real-ip: 1.2.3.4\r\nx-forwarded-for: 1.2.3.4\r\nx-cff-request-id: forged\r\n"
        b"transfer-encoding: chunked\r\nx-a: b\r\n\r\n3\r\n\xff\x00x\r\n0\r\nx-trailer: t\r\n\r\n"
    )

    _, body = exchange(port, request)

    assert seen_lines(body) == [b"POST /app HTTP/1.1", b"host: h", b"x-a: b"]
    assert body.endswith(b"\r\n\r\n\xff\x00x")
    assert b"forged" not in body
    assert b"1.2.3.4" not in body


@pytest.mark.parametrize("value", ["Grüße à".encode(), "Grüße".encode("latin-1"), b"plain", b"\xa0\x85"])
def test_header_bytes_of_the_server_reach_the_client_as_they_were_sent(port: int, value: bytes) -> None:
    head, _ = exchange(port, b"GET /web HTTP/1.1\r\nHost: h\r\nX-U: %b\r\nConnection: close\r\n\r\n" % value)

    assert [line[5:] for line in head.split(b"\r\n") if line[:5].lower() == b"x-u: "] == [value, b"second"]
    assert b"\r\ncache-control:" not in head.lower()  # caching is the function's choice


def test_an_event_without_the_raw_members_still_reaches_the_server(platform: Platform, port: int) -> None:
    event = {"httpMethod": "GET", "path": "/a b", "headers": {"x-a": "ü"}, "queryStringParameters": {"e": ""}}

    reply = call(platform, "web", event)

    assert seen_lines(reply)[0] == b"GET /a%20b?e= HTTP/1.1"
    assert "x-a: ü".encode() in seen_lines(reply)
