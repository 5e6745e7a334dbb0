"""Responses that clients do not read: which clients are cut, and when."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import cast

import anyio

from engine.asgi.listener import listen
from engine.asgi.listener_state import STALL, STALLED_LIMIT, OpenConnection, UnsentResponses
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect

SIZE = STALLED_LIMIT // 4
LIMIT = 2 * STALLED_LIMIT
BODY = SIZE - 1024  #: four responses with their heads reach the limit, five exceed it


class Reader:
    def __init__(self, left: int = SIZE) -> None:
        self.left, self.is_cut = left, False

    def unsent(self) -> int:
        return self.left

    def cut(self, *, reset: bool) -> None:
        assert reset
        self.is_cut = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(clock: Clock, count: int) -> tuple[UnsentResponses, list[Reader]]:
    """Return responses to ``count`` readers, added one second apart."""
    responses, readers = UnsentResponses(LIMIT, clock), [Reader() for _ in range(count)]
    for reader in readers:
        clock.now += 1
        responses.add(cast("OpenConnection", reader), SIZE)
    return responses, readers


def cut(readers: list[Reader]) -> list[int]:
    return [number for number, reader in enumerate(readers) if reader.is_cut]


def test_few_unread_responses_may_wait_for_long() -> None:
    clock = Clock()
    responses, readers = filled(clock, 3)
    clock.now += 100 * STALL
    responses.add(cast("OpenConnection", Reader()), SIZE)

    assert (cut(readers), responses.size) == ([], STALLED_LIMIT)


def test_of_many_those_are_cut_that_have_stopped_reading() -> None:
    clock = Clock()
    responses, readers = filled(clock, 4)
    readers[0].left -= 1
    clock.now += STALL - 2
    responses.add(cast("OpenConnection", Reader()), SIZE)

    assert cut(readers) == [1]


def test_the_reader_that_has_read_nothing_for_the_longest_time_is_cut_when_there_are_too_many() -> None:
    clock = Clock()
    responses, readers = UnsentResponses(LIMIT, clock), [Reader() for _ in range(9)]
    for reader in readers[:8]:
        responses.add(cast("OpenConnection", reader), SIZE)
    clock.now += 1
    readers[0].left -= 1
    responses.add(cast("OpenConnection", readers[8]), SIZE)

    assert (cut(readers), responses.size) == ([1], LIMIT)


def test_a_response_counts_with_all_of_its_size_until_it_is_sent() -> None:
    responses, reader = UnsentResponses(LIMIT, Clock()), Reader(left=1)
    responses.add(cast("OpenConnection", reader), SIZE)
    before = responses.size
    responses.remove(cast("OpenConnection", reader))

    assert (before, responses.size) == (SIZE, 0)


async def test_a_client_that_never_reads_is_reset_so_that_others_are_answered() -> None:
    answered = asyncio.Queue[None]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, Reply(body=b"x" * BODY))
        answered.put_nowait(None)

    loop, clients = asyncio.get_running_loop(), list[socket.socket]()
    async with listen(app, "127.0.0.1", 0, grace=60, held_limit=1) as port:
        for _ in range(5):
            clients.append(client := socket.socket())
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await answered.get()
        received = await asyncio.gather(*map(read_all, clients))

    assert received[0] < BODY
    assert [size > BODY for size in received[1:]] == [True] * 4


async def test_a_client_that_sends_without_end_and_reads_nothing_is_cut() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})

    async with listen(echo, "127.0.0.1", 0, keep_alive=0.5) as port, connect(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        with anyio.fail_after(30):
            assert await client.pour(b"x" * (1 << 16)) < 1 << 30


async def read_all(client: socket.socket) -> int:
    """Return the number of bytes up to the end of the stream, or up to its reset."""
    size = 0
    with client, suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            size += len(piece)
    return size
