"""Clients that reset their connection at any time: no error reaches the event loop or the log."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import ClientDisconnect, Receive, Reply, Scope, Send, read_body, respond

SMALL = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000
REQUESTS = (
    b"garbage\r\n\r\n",
    UPLOAD,
    UPLOAD.replace(b"/read", b"/refused"),
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stream HTTP/1.0\r\n\r\n",
    GET.replace(b"Host", b"Connection: close\r\nHost") * 4,
    GET * 6000,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    with suppress(ClientDisconnect):
        if scope["path"] == "/read":
            await read_body(receive, dict(scope["headers"]), 1 << 20)
        await respond(scope, send, Reply(body=b"x" * (1 if scope["path"] == "/small" else 300_000)))


def reset_on_close(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def misbehave(port: int, seed: int) -> None:
    choices = random.Random(seed)
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", port)) as client, suppress(OSError):
            client.settimeout(choices.choice((0.001, 0.01, 0.03)))
            client.sendall(choices.choice(REQUESTS))
            if choices.random() < 0.6:
                client.recv(choices.choice((10, 100_000)))
            if choices.random() < 0.3:
                client.shutdown(socket.SHUT_WR)
            if choices.random() < 0.6:  # close by a reset
                reset_on_close(client)


async def test_a_reset_is_never_an_error(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with caplog.at_level(logging.WARNING):
        async with listen(app, "127.0.0.1", 0, grace=1) as port:
            await asyncio.gather(*(asyncio.to_thread(misbehave, port, seed) for seed in range(6)))

    assert errors == []
    assert caplog.records == []
    assert capsys.readouterr().out == ""  # the log of the listener


async def test_a_client_that_resets_an_idle_connection_when_the_listener_ends_is_no_error() -> None:
    async with listen(app, "127.0.0.1", 0, grace=1) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, SMALL)
            assert await asyncio.get_running_loop().sock_recv(client, 1000)
            reset_on_close(client)  # the loop has not yet read the reset
