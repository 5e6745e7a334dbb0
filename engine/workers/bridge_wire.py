"""Socket to the engine, and the invocations and answers that it carries as frames.

Standard library only, Python 3.9 syntax. ``engine/runtimes/protocol.py`` describes the frames.
"""

import os
import socket
import time

SETUP, INVOKE, STOP, NOTICE = 1, 2, 3, 4
CANCELLED, TIMEOUT = 1, 2  #: reasons of notices
READY, DONE = 1, 2
HEAD = 5  #: bytes of length and kind
LONGEST_MESSAGE = 4096


class EngineClosed(Exception):
    """End of the connection to the engine, which has closed the socket or has exited."""


class Wire:
    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)

    def peek(self) -> "int | None":
        """Return the kind of the next frame without reading the frame, or None if no frame has arrived.

        Raises EngineClosed if the engine has closed the socket.
        """
        try:
            head = self.socket.recv(HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not head:
            raise EngineClosed
        return head[4] if len(head) == HEAD else None

    def read(self) -> "tuple[int, bytes]":
        """Wait for the next frame and return its kind and body.

        Raises EngineClosed if the engine has closed the socket.
        """
        head = self.exactly(HEAD)
        return head[4], self.exactly(int.from_bytes(head[:4], "big") - 1)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data), socket.MSG_WAITALL)
            if not more:
                raise EngineClosed
            data += more
        return data

    def answer(self, kind: int, ticket: int, code: int, memory: int, message: str, result: bytes) -> None:
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace")
        head = b"".join(
            (
                (15 + len(text) + len(result)).to_bytes(4, "big"),
                bytes((kind,)),
                ticket.to_bytes(4, "big"),
                code.to_bytes(2, "big"),
                memory.to_bytes(4, "big"),
                len(text).to_bytes(4, "big"),
            )
        )
        self.socket.sendall(head + text + result)


class Invocation:
    """Invocation that an INVOKE frame contains."""

    def __init__(self, body: bytes, timeout: int) -> None:
        split = 6 + body[4]
        end = split + body[5]
        self.ticket, self.request_id = int.from_bytes(body[:4], "big"), body[6:split].decode()
        self.alias, _, self.traceparent = body[split:end].decode().partition(" ")
        self.event = body[end:]
        self.deadline = int((time.time() + timeout) * 1000)  #: milliseconds since the epoch
