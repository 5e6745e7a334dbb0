"""Peers of a fuzzed stream: a listener and Node's HTTP server, which both record the requests that they read."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Scope, Send

RECORDER = Path(__file__).with_name("node_recorder.js")
UPGRADE = re.compile(rb"upgrade(?=\s*:)", re.IGNORECASE)
HIDING = 0x0D  #: of the letter U, so that it becomes an X
HIDDEN_UPGRADE = re.compile(rb"xpgrade", re.IGNORECASE)
PAUSE = 0.001  #: seconds between two pieces, so that most arrive in packets of their own

Fields = list[tuple[bytes, bytes]]


@dataclass
class Seen:
    """Request as a peer has read it. An aborted request is not whole."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes = b""
    whole: bool = False
    trailers: Fields = field(default_factory=list)


@dataclass
class Read:
    """Everything that a peer has read from a connection, and all that it has answered."""

    seen: list[Seen]
    answers: bytes = b""
    reset: bool = False


class Recorded:
    """Requests of one connection."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.running = 0


class Recorder:
    """Application that records the requests of each connection, and answers the whole ones with their number."""

    def __init__(self) -> None:
        self._connections: dict[int, Recorded] = {}
        self._ended = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._connections[scope["client"][1]]
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        seen = Seen(scope["method"].encode("latin-1"), target, list(scope["headers"]))
        number = b"%d" % len(connection.seen)
        connection.seen.append(seen)
        connection.running += 1
        try:
            if await self._read(receive, seen):
                fields = [(b"content-length", b"%d" % len(number)), (b"x-number", number)]
                await send({"type": "http.response.start", "status": 200, "headers": fields})
                await send({"type": "http.response.body", "body": number})
        finally:
            connection.running -= 1
            async with self._ended:
                self._ended.notify_all()

    async def _read(self, receive: Receive, seen: Seen) -> bool:
        while not seen.whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            seen.body += message.get("body", b"")
            seen.whole = not message.get("more_body", False)
        return True

    def begin(self, port: int) -> Recorded:
        """Record the requests from this port from now on."""
        self._connections[port] = Recorded()
        return self._connections[port]

    async def end(self, connection: Recorded) -> list[Seen]:
        """Return the requests of a closed connection when the last of them has ended."""
        async with self._ended:
            await self._ended.wait_for(lambda: not connection.running)
        return connection.seen


class Client(asyncio.Protocol):
    """Connection that sends pieces and collects what comes back."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport  # uvloop's transport is not a subclass

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():  # cancelled: the stream has run out of time
            self.ended.set_result(error)

    @property
    def port(self) -> int:
        port: int = self.transport.get_extra_info("sockname")[1]
        return port

    async def send(self, pieces: Sequence[bytes]) -> bool:
        """Send the pieces and the end of the stream. Return, when the peer has closed, whether it has reset."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(PAUSE)
            if not self.transport.is_closing():
                self.transport.write(piece)
        refused = False
        if not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:  # the reset has arrived, but the event loop has not told yet
                refused = True
        return await self.ended is not None or refused


class Peers:
    """The two peers of one run."""

    def __init__(self, recorder: Recorder, port: int, node_port: int, node: NodeOutput) -> None:
        self._recorder, self._port, self._node_port, self._node = recorder, port, node_port, node

    async def read_here(self, pieces: Sequence[bytes]) -> Read:
        client = await self._connect(self._port)
        connection = self._recorder.begin(client.port)
        reset = await client.send(pieces)
        return Read(await self._recorder.end(connection), bytes(client.received), reset)

    async def read_by_node(self, pieces: Sequence[bytes]) -> Read:
        client = await self._connect(self._node_port)
        record = self._node.expect(client.port)
        reset = await client.send(_without_upgrade(pieces))
        return Read(await record, bytes(client.received), reset)

    async def _connect(self, port: int) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
        return client


def _without_upgrade(pieces: Sequence[bytes]) -> list[bytes]:
    """Return the pieces with another name of the field Upgrade, of the same length."""
    data = UPGRADE.sub(lambda match: bytes([match[0][0] ^ HIDING]) + match[0][1:], b"".join(pieces))
    edges = [0, *accumulate(len(piece) for piece in pieces)]
    return [data[low:high] for low, high in pairwise(edges)]


def _with_upgrade(text: str) -> bytes:
    return HIDDEN_UPGRADE.sub(lambda match: bytes([match[0][0] ^ HIDING]) + match[0][1:], text.encode("latin-1"))


class NodeOutput:
    """Reader of the lines of ``node_recorder.js``."""

    def __init__(self, stdout: asyncio.StreamReader) -> None:
        self._stdout = stdout
        self._waiting: dict[int, deque[asyncio.Future[list[Seen]]]] = defaultdict(deque)

    def expect(self, port: int) -> asyncio.Future[list[Seen]]:
        """Return a future of the requests on the connection from this port.

        After a reset, the system may give the port to another connection before Node has told of the first one.
        """
        future: asyncio.Future[list[Seen]] = asyncio.get_running_loop().create_future()
        self._waiting[port].append(future)
        return future

    async def read(self) -> None:
        async for line in self._stdout:
            record = json.loads(line)
            waiting = self._waiting[record["port"]].popleft()
            if not waiting.done():  # cancelled: its stream has run out of time
                waiting.set_result([_seen(request) for request in record["requests"]])


def _seen(record: dict[str, Any]) -> Seen:
    return Seen(
        method=record["method"].encode(),
        target=_with_upgrade(record["target"]),
        fields=_fields(record["headers"]),
        body=_with_upgrade(record["body"]),
        whole=record["whole"],
        trailers=_fields(record["trailers"]),
    )


def _fields(texts: list[str]) -> Fields:
    flat = [_with_upgrade(text) for text in texts]
    return [(name.lower(), value) for name, value in zip(flat[::2], flat[1::2], strict=True)]


@asynccontextmanager
async def running_peers() -> AsyncIterator[Peers]:
    recorder = Recorder()
    process = await asyncio.create_subprocess_exec("node", str(RECORDER), stdout=PIPE, limit=16 << 20)
    assert process.stdout is not None
    try:
        node_port = int(await process.stdout.readline())
        output = NodeOutput(process.stdout)
        async with listen(recorder, "127.0.0.1", 0) as port, asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(output.read())
            yield Peers(recorder, port, node_port, output)
            reading.cancel()
    finally:
        process.kill()
        await process.wait()
