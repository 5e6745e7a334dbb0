"""Bytes of requests in memory, bodies that are passed on piece by piece, and turns of connections with large ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import cast

import pytest

from engine.asgi.listener import listen
from engine.asgi.listener_state import BATCH_SIZE, LARGE, STREAMED, HeldBytes, ListenerState, OpenConnection, ReadTurns
from engine.asgi.responses import Refusal
from engine.asgi.room import Room
from engine.asgi.wire import Receive, Reply, Scope, Send, read_body, read_pieces, respond
from tests.support.waiting import until

CLIENT = "192.0.2.1"


def listener_state() -> ListenerState:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    return ListenerState(app, keep_alive=60, held_limit=100 << 20)


async def test_pieces_that_the_application_has_released_are_held_no_more() -> None:
    sizes: list[int] = []

    def passed(size: int) -> bool:
        return sum(sizes) >= size

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def take(piece: bytes) -> None:
            sizes.append(len(piece))

        await read_pieces(receive, dict(scope["headers"]), 10_000, take)
        await respond(scope, send, Reply(body=b"ok"))

    async with listen(app, "127.0.0.1", 0, held_limit=1000) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            for number in range(2):
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2500\r\n\r\n")
                for piece in range(5):
                    writer.write(b"x" * 500)
                    await until(partial(passed, 2500 * number + 500 * (piece + 1)))

                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")


async def test_a_streamed_body_reads_on_when_its_pieces_are_released() -> None:
    held = HeldBytes(listener_state(), CLIENT)
    held.add(10)
    early = held.may_read

    held.release(0)
    late = held.may_read
    held.release(10)

    assert (early, late, held.may_read) == (True, False, True)


async def test_streamed_bodies_read_no_more_while_all_of_them_hold_too_much() -> None:
    state = listener_state()
    one, other = HeldBytes(state, CLIENT), HeldBytes(state, CLIENT)
    other.release(0)
    one.release(0)
    one.add(STREAMED)
    full = other.may_read

    one.clear()

    assert (full, other.may_read) == (False, True)
    assert (state.room.taken, state.streamed) == (0, 0)


async def test_bytes_beyond_the_limit_are_refused() -> None:
    state = listener_state()
    with pytest.raises(Refusal):
        HeldBytes(state, CLIENT).add(state.room.size)


def test_each_holder_leaves_as_much_as_it_has_to_others() -> None:
    room, most = Room(1000), Counter[str]()
    for holder in ("first", "second", "third"):
        while room.fits(holder):
            room.add(holder, 1)
            most[holder] += 1
        room.add(holder, -1)

    room.add("first", -500)
    room.add("third", 200)

    assert most == {"first": 501, "second": 251, "third": 126}
    assert room.fits("third")


SIZE = 8 * LARGE
UPLOADS = 3 * BATCH_SIZE


class Held:
    def __init__(self, size: int) -> None:
        self.size, self.may_read = size, True


class Reader:
    def __init__(self, taken: list[int], held: int) -> None:
        self._taken, self.held = taken, Held(held)

    def take_turn(self) -> None:
        self._taken.append(self.held.size)


async def test_a_few_connections_read_at_each_turn_those_that_hold_most_first() -> None:
    turns, taken, counts = ReadTurns(), list[int](), [0]
    for held in range(3 * BATCH_SIZE):
        turns.wait(cast("OpenConnection", Reader(taken, held)))
    while len(taken) < 3 * BATCH_SIZE:
        await asyncio.sleep(0)
        counts.append(len(taken))

    assert taken == list(reversed(range(3 * BATCH_SIZE)))
    assert all(after - before <= BATCH_SIZE for before, after in pairwise(counts))


async def test_a_connection_that_waits_again_reads_again() -> None:
    turns, taken = ReadTurns(), list[int]()
    for _ in range(2):
        turns.wait(cast("OpenConnection", Reader(taken, 1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert taken == [1, 1]


async def test_a_connection_that_may_not_read_waits_until_it_may() -> None:
    turns, taken = ReadTurns(), list[int]()
    reader = Reader(taken, 1)
    reader.held.may_read = False
    turns.wait(cast("OpenConnection", reader))
    turns.wait(cast("OpenConnection", Reader(taken, 0)))
    for _ in range(5):
        await asyncio.sleep(0)
    early = list(taken)

    reader.held.may_read = True
    turns.proceed()
    await asyncio.sleep(0)

    assert (early, taken) == ([0], [0, 1])


async def test_all_of_many_large_bodies_arrive_whole() -> None:
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await read_body(receive, {}, SIZE))
        await respond(scope, send, Reply(body=b"ok"))

    async def upload(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE)
        writer.write(bytes([number]) * SIZE)
        assert (await reader.read()).endswith(b"ok")
        writer.close()
        await writer.wait_closed()

    async with listen(app, "127.0.0.1", 0) as port, asyncio.TaskGroup() as tasks:
        for number in range(UPLOADS):
            tasks.create_task(upload(number))

    assert sorted(bodies) == [bytes([number]) * SIZE for number in range(UPLOADS)]
