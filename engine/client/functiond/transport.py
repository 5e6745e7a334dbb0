"""HTTP connections of synchronous clients, which run the steps of operations."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import TypeVar
from urllib.parse import urlsplit
from weakref import finalize

from functiond.configuration import Configuration
from functiond.errors import ApiError, BadConfiguration, ClientClosed, Overloaded, Unavailable, Unreachable
from functiond.records import LogLine, LogReader
from functiond.steps import LARGEST_REPLY, LONGEST_LIMIT, Reply, Request, Sleep, Steps, error_of

T = TypeVar("T")
AGENT = "functiond-python"
CONNECT = 5.0  #: seconds to connect
IDLE, MOST_IDLE = 5.0, 100  #: seconds and number of connections that wait for another request
PIECE = 1 << 16  #: bytes that are read at once


class Connections:
    """Idle connections of a client, which are closed with it, or at the exit of the program. Threads may share them."""

    def __init__(self, client: object) -> None:
        self._idle: deque[tuple[float, HTTPConnection]] = deque()
        self._process = os.getpid()
        finalize(client, self.close)

    def take(self) -> HTTPConnection | None:
        """Return the connection that was used last and is still open; None if there is none."""
        if self._process != os.getpid():  # those that were open before a fork belong to the other process
            self.close()
            self._process = os.getpid()
        with suppress(IndexError):
            while True:
                since, connection = self._idle.pop()
                if time.monotonic() - since < IDLE and not _has_ended(connection.sock):
                    return connection
                connection.close()
        return None

    def keep(self, connection: HTTPConnection) -> None:
        self._idle.append((time.monotonic(), connection))
        if len(self._idle) > MOST_IDLE:
            with suppress(IndexError):
                self._idle.popleft()[1].close()

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()


class Transport:
    """Connections of a synchronous client. Threads may share them.

    They are closed by ``close``, else when nothing refers to them any more, or at the exit of the program.
    """

    def __init__(self, configuration: Configuration, *, agent: str = AGENT) -> None:
        self.configuration, self._agent = configuration, agent
        self._tls, self._closed = configuration.tls(), False
        self._connections = Connections(self)

    def run(self, steps: Steps[T]) -> T:
        outcome: Reply | Unreachable | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._outcome(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def _outcome(self, request: Request) -> Reply | Unreachable:
        try:
            return self.send(request)
        except Unreachable as problem:
            return problem

    def lines(self, request: Request, reader: LogReader) -> Iterator[LogLine]:
        """Yield the lines of a log as they arrive, also after broken connections."""
        while True:
            try:
                with self.opened(request) as reply:
                    if reply.status >= 300:
                        raise error_of(read(self.configuration, reply))
                    for piece in pieces_of(reply):
                        yield from reader.read(piece)
                if reader.complete:
                    return
                raise Unreachable(self.configuration.url, "the log stopped before its end", sent=True)
            except (Unreachable, Overloaded, Unavailable) as problem:
                delay = reader.resume(problem)
            time.sleep(delay)

    def send(self, request: Request) -> Reply:
        """Send a request once, and return its reply, whatever its status. Raises Unreachable and BadConfiguration."""
        with self.opened(request) as reply:
            return read(self.configuration, reply)

    @contextmanager
    def opened(self, request: Request) -> Iterator[HTTPResponse]:
        """Send a request once, and yield its reply, whose body is not read yet."""
        if self._closed:
            raise ClientClosed(self.configuration.url)
        # The date of a signature is that of the attempt. The agent is not signed, because proxies may change it.
        headers = self.configuration.headers(request.method, request.target, request.headers, request.body)
        headers["User-Agent"] = self._agent
        body: bytes | Iterable[bytes] | None = request.body or None
        if request.pieces is not None:
            headers["Content-Length"], body = str(len(request.body)), request.pieces
        connection = self._connections.take() or self._connection(request.limit)
        connected = sent = reusable = False
        try:
            if connection.sock is None:
                connection.connect()
            connected = True
            connection.sock.settimeout(min(request.limit, LONGEST_LIMIT))
            with suppress(BrokenPipeError, ConnectionResetError):  # the engine may refuse a body before it has it all
                connection.request(request.method, request.target, body, headers)
                sent = True
            reply = connection.getresponse()
            check_encoding(self.configuration, reply.status, reply.headers.get("content-encoding", ""))
            yield reply
            reusable = sent and reply.isclosed() and connection.sock is not None and not self._closed
        except ssl.SSLCertVerificationError as error:
            raise not_trusted(self.configuration, str(error)) from error
        except (OSError, HTTPException) as error:
            raise Unreachable(self.configuration.url, _problem(error), sent=connected) from error
        finally:
            if reusable:
                self._connections.keep(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._closed = True
        self._connections.close()

    def _connection(self, limit: float) -> HTTPConnection:
        parts, timeout = urlsplit(self.configuration.url), min(CONNECT, limit)
        if self._tls is None:
            return HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
        return HTTPSConnection(str(parts.hostname), parts.port, timeout=timeout, context=self._tls)


def pieces_of(reply: HTTPResponse) -> Iterator[bytes]:
    """Yield the body of a reply as it arrives. Raises IncompleteRead if it breaks off."""
    while piece := reply.read1(PIECE):
        yield piece
    if reply.length:
        raise IncompleteRead(b"", reply.length)


def read(configuration: Configuration, reply: HTTPResponse) -> Reply:
    """Return a reply with its body, which may break off or be too large as in ``pieces_of`` and ``add``."""
    body = bytearray()
    while piece := reply.read(PIECE):
        add(configuration, reply.status, body, piece)
    if reply.length:
        raise IncompleteRead(b"", reply.length)
    headers = {name.lower(): value for name, value in reply.getheaders()}
    return Reply(status=reply.status, headers=headers, body=bytes(body))


def add(configuration: Configuration, status: int, body: bytearray, piece: bytes) -> None:
    """Add a piece to the body of a reply. Raises ApiError if the body gets larger than any of an engine."""
    body += piece
    if len(body) > LARGEST_REPLY:
        raise _foreign(configuration, status, f"the reply has more than {LARGEST_REPLY >> 20} MiB")


def check_encoding(configuration: Configuration, status: int, encoding: str) -> None:
    """Raise ApiError if the body is compressed, which no request permits: a small one could fill the memory."""
    if encoding:
        problem = f"the reply is compressed ({encoding}), which the client has not permitted"
        raise _foreign(configuration, status, problem)


def _foreign(configuration: Configuration, status: int, problem: str) -> ApiError:
    host = urlsplit(configuration.url).hostname
    return ApiError(status, f"HTTP {status}", f"{problem}: is {host} a functiond engine?")


def not_trusted(configuration: Configuration, problem: str) -> BadConfiguration:
    return BadConfiguration(f"the certificate of {configuration.url} is not trusted ({problem}): give ca_file")


def _has_ended(connection: socket.socket) -> bool:
    """Return whether the engine has closed an idle connection, which makes it readable."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))


def _problem(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
