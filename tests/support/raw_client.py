"""Client that sends exact bytes over TCP, and a strict parser of the answers that it receives."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple

#: Turns of the loop after which the listener has received what was sent, as a packet of its own.
LOOP_ROUNDS = 3
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z' -]+\Z")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)\Z")


class Answer(NamedTuple):
    """Answer of a listener. Names of fields are in lower case."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def all(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field == name]


class RawClient:
    """One connection to a listener of this event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self.received = b""

    async def send(self, data: bytes) -> None:
        """Send ``data``, in one packet if it fits into the buffer of the system."""
        await self._loop.sock_sendall(self._sock, data)
        await _let_listener_read()

    async def until(self, mark: bytes, count: int = 1) -> bytes:
        """Return all bytes that were received, once they contain ``mark`` ``count`` times."""
        while self.received.count(mark) < count:
            if not await self._receive():
                raise EOFError(f"the listener closed the connection after {self.received!r}")
        return self.received

    async def until_size(self, size: int) -> None:
        """Return once ``size`` bytes have been received."""
        while len(self.received) < size:
            if not await self._receive(1 << 16):
                raise EOFError(f"the listener closed the connection after {len(self.received)} bytes")

    async def rest(self) -> bytes:
        """Return all bytes that were received, once the listener has closed the connection.

        Raises ConnectionResetError if the listener has reset it.
        """
        while await self._receive():
            pass
        return self.received

    async def pour(self, data: bytes, *, pause: float = 0) -> int:
        """Send ``data`` again and again until the listener resets the connection. Return how many bytes were sent."""
        sent = 0
        try:
            while True:
                await self.send(data)
                sent += len(data)
                await asyncio.sleep(pause)
        except ConnectionError:
            return sent

    async def _receive(self, most: int = 1 << 20) -> bool:
        data = await self._loop.sock_recv(self._sock, most)
        self.received += data
        return bool(data)

    def end(self) -> None:
        """Close the sending side of the connection."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection, as the system does for a process that is killed with unread bytes."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


async def _let_listener_read() -> None:
    for _ in range(LOOP_ROUNDS):
        await asyncio.sleep(0)


@asynccontextmanager
async def connect(port: int, *, buffer: int = 0, source: str = "") -> AsyncIterator[RawClient]:
    """Connect to a port of this machine. ``buffer`` is the size of the receive buffer, if not the system's.

    ``source`` is the client's address, if not 127.0.0.1.
    """
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if source:
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield RawClient(sock)
    await _let_listener_read()


async def first_answer(port: int, request: bytes) -> bytes:
    """Send a request, which need not be complete. Return the bytes of the first answer, which has a length."""
    async with connect(port) as client:
        await client.send(request)
        head, _, _ = (await client.until(b"\r\n\r\n")).partition(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        await client.until_size(len(head) + 4 + length)
        return client.received


def read_answers(received: bytes, *, bodiless: Collection[int] = ()) -> list[Answer]:
    """Parse ``received``, which must consist of complete answers only.

    ``bodiless`` are the positions of answers to HEAD requests. An answer without a length ends with the bytes.
    """
    answers: list[Answer] = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, f"head without an end: {head!r}"
        first, *lines = head.split(b"\r\n")
        status = STATUS_LINE.match(first)
        assert status, first
        answer = Answer(int(status[1]), [_field(line) for line in lines], b"")
        if answer.status >= 200 and answer.status not in (204, 304) and len(answers) not in bodiless:
            body, received = _body(answer, received)
            answer = answer._replace(body=body)
        answers.append(answer)
    return answers


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = FIELD.match(line)
    assert match, line
    return match[1].lower(), match[2]


def _body(answer: Answer, received: bytes) -> tuple[bytes, bytes]:
    lengths, codings = answer.all(b"content-length"), answer.all(b"transfer-encoding")
    if codings:
        assert (codings, lengths) == ([b"chunked"], [])
        return _chunks(received)
    if not lengths:
        return received, b""
    assert len(lengths) == 1, lengths
    size = int(lengths[0])
    assert len(received) >= size, f"{size} bytes were announced, {len(received)} came"
    return received[:size], received[size:]


def _chunks(received: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, end, received = received.partition(b"\r\n")
        assert end, size
        length = int(size, 16)
        assert received[length : length + 2] == b"\r\n", "a chunk is cut off"
        body, received = body + received[:length], received[length + 2 :]
        if length == 0:
            return body, received
