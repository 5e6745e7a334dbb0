"""Refusals that are sent while the body still comes: each reaches a client that reads only after it has sent all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from engine.asgi import deadline
from engine.asgi.listener import listen
from engine.auth.credentials import Token
from engine.auth.throttle import AuthThrottle
from engine.http.auth import Authenticator
from engine.model.clock import SystemClock
from tests.plugins.apig.test_apig_gateway import gateway
from tests.support.http_app import BASE, PROJECT, serve, urn_of
from tests.support.raw_client import Answer, connect, read_answers
from tests.support.raw_exchanges import LIMIT, in_production
from tests.support.scripted_app import ScriptedApp, no_problems

SIZE = 3 << 20
BODY = b"x" * SIZE
CHUNKED = b"".join(b"%x\r\n%b\r\n" % (size, BODY[:size]) for size in (1 << 20, 1 << 20, 1 << 20)) + b"0\r\n\r\n"
TIMES = 20
LENGTH = b"Content-Length: %d\r\n" % SIZE
#: Version, header lines and body of uploads.
KINDS = {
    "keep-alive": (b"HTTP/1.1", LENGTH, BODY),
    "close": (b"HTTP/1.1", LENGTH + b"Connection: close\r\n", BODY),
    "chunked": (b"HTTP/1.1", b"Transfer-Encoding: chunked\r\n", CHUNKED),
    "http-1.0": (b"HTTP/1.0", LENGTH, BODY),
    "http-1.0-keep-alive": (b"HTTP/1.0", LENGTH + b"Connection: keep-alive\r\n", BODY),
}


def head_of(path: str, kind: str) -> bytes:
    version, fields, _ = KINDS[kind]
    head = b"POST %b %b\r\nHost: localhost\r\nContent-Type: application/json\r\n" % (path.encode(), version)
    return head + fields + b"\r\n"


def upload(path: str, kind: str) -> bytes:
    return head_of(path, kind) + KINDS[kind][2]


def answer_to(port: int, request: bytes) -> Answer:
    """Send the whole request with blocking calls, and only then read the answer.

    Raises ConnectionError if the listener resets the connection.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
        sock.sendall(request)
        received = b""
        while not received.endswith(b"}"):
            data = sock.recv(1 << 16)
            assert data, f"the listener closed the connection after {received!r}"
            received += data
    [answer] = read_answers(received)
    return answer


async def answers_to(port: int, request: bytes, times: int = TIMES) -> list[int | str]:
    """Return the status of each answer to repetitions of ``request``, or the name of the error in its place."""

    def statuses() -> Iterator[int | str]:
        for _ in range(times):
            try:
                yield answer_to(port, request).status
            except (ConnectionError, AssertionError) as error:
                yield type(error).__name__

    return await anyio.to_thread.run_sync(lambda: list(statuses()))


@pytest.mark.parametrize("kind", KINDS)
async def test_no_refusal_of_an_application_is_lost(kind: str) -> None:
    app, statuses = ScriptedApp(), [status for status in (401, 404, 413, 429) for _ in range(TIMES // 4)]
    async with no_problems(), listen(app, "127.0.0.1", 0) as port:
        for status in sorted({*statuses}):
            assert await answers_to(port, upload(f"/{status}", kind), TIMES // 4) == [status] * (TIMES // 4)

    assert app.seen == [(f"POST /{status}", b"") for status in statuses]


@pytest.mark.parametrize(
    ("status", "field"),
    [(400, b"A b: c"), (431, b"A: " + b"b" * (65 << 10)), (417, b"Expect: x"), (501, b"Transfer-Encoding: x, chunked")],
)
async def test_no_refusal_of_the_listener_is_lost(status: int, field: bytes) -> None:
    request = upload("/t", "keep-alive").replace(b"Content-Length", field + b"\r\nContent-Length")
    if status == 501:
        request = request.replace(b"Content-Length: %d\r\n" % SIZE, b"")
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port:
        assert await answers_to(port, request) == [status] * TIMES

    assert app.seen == []


async def answers_to_each_kind(port: int, path: str) -> list[int | str]:
    """Return the status of each answer to 20 uploads to ``path``, five of each kind."""
    return [status for kind in KINDS for status in await answers_to(port, upload(path, kind), TIMES // len(KINDS))]


@in_production
async def test_no_refusal_of_the_api_is_lost(tmp_path: Path) -> None:
    async with no_problems(), serve(tmp_path) as api:
        await api.create()
        path = f"{BASE}/{urn_of()}/invocations-async"

        assert await answers_to_each_kind(api.port, path) == [413] * TIMES
        assert await answers_to_each_kind(api.port, "/unknown") == [404] * TIMES


@in_production
async def test_no_refusal_of_credentials_is_lost(tmp_path: Path) -> None:
    token, clock = Token(token="a-token-of-a-project", project=PROJECT), SystemClock()
    failures = AuthThrottle(clock, limit=1000, window=60)
    authenticator = Authenticator([], [token], clock=clock, failures=failures, body_limits={})
    async with serve(tmp_path) as api, listen(api.app(authenticator=authenticator), "127.0.0.1", 0) as port:
        assert await answers_to_each_kind(port, BASE) == [401] * TIMES


@in_production
async def test_no_refusal_of_a_gateway_is_lost(tmp_path: Path) -> None:
    async with gateway(tmp_path, {}, plugins__apig__body_limit=1 << 20) as at:
        port = at.client.base_url.port
        assert port is not None
        assert await answers_to_each_kind(port, "/orders") == [413] * TIMES
        assert await answers_to_each_kind(port, "/unknown") == [404] * TIMES


async def test_a_body_without_end_is_not_read_for_ever() -> None:
    head = b"POST /413 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(head)
        await client.until(b"{}")
        with anyio.fail_after(LIMIT):
            sent = await client.pour(BODY)

    assert sent < 2 * deadline.DROPPED_LIMIT


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_sends_nothing_more_is_closed_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "LINGER_PAUSE", 0.2)
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(head_of("/413", kind))
        with anyio.fail_after(LIMIT):
            [answer] = read_answers(await client.rest())
            await asyncio.sleep(0.4)
            await client.pour(b"x")  # ends, because the listener has closed both sides

    assert answer.status == 413


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "chunked"])
async def test_a_client_that_sends_its_body_for_ever_is_closed_in_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "LINGER_TIME", 0.5)
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(head_of("/413", kind))
        with anyio.fail_after(LIMIT):
            await client.pour(b"x", pause=0.02)

    assert client.received == b""  # the client has not read
