"""Clients of the soak: connections that invoke functions in all ways, or break off, until they are told to stop."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random

from msgspec import Struct, field

#: Seconds between two requests of a client, on average.
PAUSE = 1.0
#: Shares of requests: synchronous ones, those broken off in the middle, and asynchronous ones whose client waits.
SYNCHRONOUS, BROKEN, WAITING = 0.15, 0.05, 0.5
#: Seconds after which an answer counts as lost.
MAX_WAIT = 60.0


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Functions(Struct, frozen=True, kw_only=True):
    """Paths of the functions in the API, and their shares of the requests, by name."""

    port: int
    paths: dict[str, str]
    weights: dict[str, float]


class Seen(Struct):
    """Results of all clients."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[tuple[str, str]] = field(default_factory=list)  #: path and request id of each 202
    lost: int = 0  #: connections that the engine closed without an answer


async def load(functions: Functions, seen: Seen, connections: int, seconds: float, random: Random) -> None:
    """Let clients send requests for ``seconds``, then end when all answers have come."""
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_client(functions, seen, until, Random(random.random())))


async def _client(functions: Functions, seen: Seen, until: float, random: Random) -> None:
    loop, connection = asyncio.get_running_loop(), None
    while loop.time() < until:
        await asyncio.sleep(random.expovariate(1 / PAUSE))
        if connection is None:
            connection = await asyncio.open_connection("127.0.0.1", functions.port)
        try:
            stays = await asyncio.wait_for(_request(functions, seen, connection, random), MAX_WAIT)
        except (OSError, EOFError, TimeoutError):
            seen.lost += 1
            stays = False
        if not stays:
            _break_off(connection)
            connection = None
    if connection is not None:
        _break_off(connection)


async def _request(functions: Functions, seen: Seen, connection: Connection, random: Random) -> bool:
    """Invoke a function. Return False if the client does not use the connection again."""
    [name] = random.choices(list(functions.paths), list(functions.weights.values()))
    path, way = functions.paths[name], "invocations" if random.random() < SYNCHRONOUS else "invocations-async"
    body = json.dumps({"n": random.random(), "text": "x" * random.choice((10, 1000, 50_000))}).encode()
    head = f"POST {path}/{way} HTTP/1.1\r\nHost: 127.0.0.1:{functions.port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if random.random() < BROKEN:
        connection[1].write(request[: len(request) // 2])
        return False
    status, answer = await _exchange(connection, request)
    seen.statuses[status] += 1
    if status == 202:
        request_id = json.loads(answer)["request_id"]
        seen.accepted.append((path, request_id))
        if random.random() < WAITING:
            await _exchange(connection, _query(functions.port, path, request_id, "?wait=30"))
    return random.random() > BROKEN


async def find_states(port: int, accepted: list[tuple[str, str]], connections: int) -> Counter[str]:
    """Return the number of accepted requests by the state that the engine shows."""
    states: Counter[str] = Counter()
    waiting = list(accepted)

    async def ask() -> None:
        connection = await asyncio.open_connection("127.0.0.1", port)
        while waiting:
            path, request_id = waiting.pop()
            request = _query(port, path, request_id)
            status, answer = await asyncio.wait_for(_exchange(connection, request), MAX_WAIT)
            states[json.loads(answer)["status"] if status == 200 else str(status)] += 1
        _break_off(connection)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(ask())
    return states


def _query(port: int, path: str, request_id: str, options: str = "") -> bytes:
    return f"GET {path}/async-invocations/{request_id}{options} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


async def _exchange(connection: Connection, request: bytes) -> tuple[int, bytes]:
    reader, writer = connection
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(int(length.partition(b":")[2]))


def _break_off(connection: Connection) -> None:
    connection[1].transport.abort()
