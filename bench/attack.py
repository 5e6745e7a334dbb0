"""Hostile clients: a separate process that holds many connections and sends what its kind says, until its time is over.

Run as ``python -m bench.attack``: reads an Attack as JSON from stdin. Writes a line to stdout once all
connections are open, then a Report.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

BLOCK = 64 << 10  #: bytes that are written at once
UPLOAD = 3 << 20  #: bytes of a body that is refused
PACE = 0.05  #: seconds between two blocks of a connection: else the system's own queues delay the ordinary client
TRICKLE = 0.1  #: seconds between two bytes
RECONNECT = 0.01  #: seconds between the end of a connection and the next one
OPENING = 30.0  #: seconds in which all connections must be open


class Attack(Struct, frozen=True, kw_only=True):
    kind: str  #: name in ``CLIENTS``
    port: int
    path: str  #: of the function in the API
    connections: int
    seconds: float


class Report(Struct, kw_only=True):
    opened: int = 0
    closed: int = 0  #: connections that the engine has closed
    sent: int = 0  #: bytes
    received: int = 0  #: bytes
    refused: int = 0  #: refused uploads whose status the client has read
    lost: int = 0  #: uploads that ended without a status


class Client(asyncio.Protocol):
    """Connection that is silent. It is replaced when the engine closes it."""

    reads = True
    tls = False

    def __init__(self, attack: Attack, report: Report, connect: Callable[[], None]) -> None:
        self.attack, self.report, self._connect = attack, report, connect

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass
        self.report.opened += 1
        self.begin()

    def begin(self) -> None:
        """Send the first bytes."""

    def send(self, data: bytes) -> None:
        with suppress(RuntimeError):  # uvloop has closed the transport, and tells later
            self.transport.write(data)
            self.report.sent += len(data)

    def data_received(self, data: bytes) -> None:
        self.report.received += len(data)
        if not self.reads:  # earlier, uvloop would resume reading by itself
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.report.closed += 1
        asyncio.get_running_loop().call_later(RECONNECT, self._connect)

    def post(self, path: str, fields: str) -> bytes:
        host = f"Host: 127.0.0.1:{self.attack.port}\r\nContent-Type: application/json\r\n"
        return f"POST {path} HTTP/1.1\r\n{host}{fields}\r\n".encode()


class SlowHead(Client):
    """Client that sends a head byte by byte, without end."""

    rest = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "

    def begin(self) -> None:
        self.trickle()

    def trickle(self) -> None:
        if self.transport.is_closing():
            return
        self.send(self.rest[:1] or b"x")
        self.rest = self.rest[1:]
        asyncio.get_running_loop().call_later(TRICKLE, self.trickle)


class ManyFields(SlowHead):
    """Client that fills a head with small fields, then goes on byte by byte."""

    def begin(self) -> None:
        self.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 12_000)
        self.rest = b""
        self.trickle()


class SlowBody(SlowHead):
    """Client that sends a body byte by byte."""

    rest = b""

    def begin(self) -> None:
        self.send(self.post(f"{self.attack.path}/invocations-async", "Content-Length: 200000\r\n"))
        self.trickle()


class Flood(Client):
    """Client that sends a block over and over, unless the engine does not read. This one sends heads without end."""

    block = b"a:b\r\n" * (BLOCK // 5)
    paused = False

    def first(self) -> bytes:
        """Return the bytes in front of the blocks."""
        return b"GET /healthz HTTP/1.1\r\nHost: a\r\n"

    def begin(self) -> None:
        self.send(self.first())
        self.pour()

    def pour(self) -> None:
        if self.transport.is_closing():
            return
        if not self.paused:
            self.pour_block()
        asyncio.get_running_loop().call_later(PACE, self.pour)

    def pour_block(self) -> None:
        self.send(self.block)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False


class DeclaredBody(Flood):
    """Client that sends a body far beyond the limit, which it declares."""

    block = b"x" * BLOCK

    def first(self) -> bytes:
        return self.post(f"{self.attack.path}/invocations", f"Content-Length: {1 << 40}\r\n")


class ChunkedBody(Flood):
    """Client that sends chunks without end, as an event of at most 256 KiB."""

    block = (b"ffc\r\n" + b"x" * 0xFFC + b"\r\n") * (BLOCK >> 12)
    call = "invocations-async"

    def first(self) -> bytes:
        return self.post(f"{self.attack.path}/{self.call}", "Transfer-Encoding: chunked\r\n")


class ChunkedCall(ChunkedBody):
    """Client that sends chunks without end, as an event of at most 6 MiB."""

    call = "invocations"


class EndlessFields(ChunkedBody):
    """Client that creates a function whose fields have no end."""

    def first(self) -> bytes:
        return self.post(self.attack.path.rpartition("/")[0], "Transfer-Encoding: chunked\r\n")


class EndlessCode(EndlessFields):
    """Client that creates a function whose code has no end."""

    def first(self) -> bytes:
        return super().first() + b"16\r\n" + b'{"func_code":{"file":"' + b"\r\n"


class Pipeline(Flood):
    """Client that sends requests without waiting for answers, which it reads."""

    block = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * (BLOCK // 44)

    def first(self) -> bytes:
        return b""


class TlsPipeline(Pipeline):
    """Client that sends requests over TLS without waiting for answers."""

    tls = True


class UnreadPipeline(Pipeline):
    """Client that sends requests and reads no answer."""

    reads = False


class UnreadAnswer(Client):
    """Client that asks for a large answer and does not read it."""

    reads = False

    def begin(self) -> None:
        self.send(self.post(f"{self.attack.path}/invocations", "Content-Length: 2\r\n") + b"{}")


class Garbage(Flood):
    """Client that sends random bytes."""

    block = random.Random(1).randbytes(BLOCK)

    def first(self) -> bytes:
        return b""


class RefusedUpload(Flood):
    """Client that uploads a body to an unknown function, and closes the connection when it has read a status."""

    block = b"x" * BLOCK
    left = UPLOAD
    head = b""

    def first(self) -> bytes:
        return self.post(f"{self.attack.path}-unknown/invocations", f"Content-Length: {UPLOAD}\r\n")

    def pour_block(self) -> None:
        if self.left:
            self.left -= len(self.block)
            super().pour_block()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.head = (self.head + data)[:12]
        if len(self.head) == 12:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
            self.report.refused += 1
        else:
            self.report.lost += 1
        super().connection_lost(error)


CLIENTS: dict[str, type[Client]] = {
    "silent": Client,
    "slow heads": SlowHead,
    "many fields": ManyFields,
    "slow bodies": SlowBody,
    "large heads": Flood,
    "declared bodies": DeclaredBody,
    "chunked bodies": ChunkedBody,
    "endless fields": EndlessFields,
    "endless code": EndlessCode,
    "chunked calls": ChunkedCall,
    "read pipelines": Pipeline,
    "TLS pipelines": TlsPipeline,
    "unread pipelines": UnreadPipeline,
    "unread answers": UnreadAnswer,
    "garbage": Garbage,
    "refused uploads": RefusedUpload,
}


def anonymous_tls() -> ssl.SSLContext:
    """Return settings of TLS that accept every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def run(attack: Attack) -> Report:
    """Keep the connections open for the seconds of the attack."""
    loop, report, opening = asyncio.get_running_loop(), Report(), set[asyncio.Task[None]]()
    over = time.monotonic() + attack.seconds + OPENING
    client = CLIENTS[attack.kind]
    tls = anonymous_tls() if client.tls else None

    async def open_one() -> None:
        with suppress(OSError):  # the engine's port is full or closed: the next attempt may succeed
            await loop.create_connection(make, "127.0.0.1", attack.port, ssl=tls)
            return
        loop.call_later(RECONNECT, connect)

    def connect() -> None:
        if time.monotonic() < over:
            task = loop.create_task(open_one())
            opening.add(task)
            task.add_done_callback(opening.discard)

    def make() -> Client:
        return client(attack, report, connect)

    for _ in range(attack.connections):
        connect()
    async with asyncio.timeout(OPENING):
        while report.opened < attack.connections:  # noqa: ASYNC110  (connections open and close at any time)
            await asyncio.sleep(RECONNECT)
    print(flush=True)
    await asyncio.sleep(attack.seconds)
    over = 0.0
    for task in opening:
        task.cancel()
    await asyncio.gather(*opening, return_exceptions=True)
    return report


def main() -> None:
    attack = msgspec.json.decode(sys.stdin.buffer.read(), type=Attack)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(attack))))


if __name__ == "__main__":
    main()
