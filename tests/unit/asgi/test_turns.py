"""Turns of connections that read large bodies."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import cast

from engine.asgi.listener import listen
from engine.asgi.listener_state import BATCH_SIZE, LARGE, OpenConnection, ReadTurns
from engine.asgi.wire import Receive, Reply, Scope, Send, read_body, respond

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
