"""HTTP connections of clients, which run the steps of operations: one for threads, one for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any, TypeVar

import httpx

from functiond.configuration import Configuration
from functiond.connections import HEADERS, Connections
from functiond.errors import ApiError, BadConfiguration, ClientClosed, Overloaded, Unavailable, Unreachable
from functiond.log_stream import LogReader
from functiond.records import LogLine
from functiond.steps import LARGEST_REPLY, LONGEST_LIMIT, Reply, Request, Sleep, Steps, error_of

T = TypeVar("T")
CONNECT = 5.0  #: seconds to connect
#: Every long poll needs a connection.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


class Transport:
    """Connections of a synchronous client. Threads may share them.

    They are closed by ``close``, else when nothing refers to them any more, or at the exit of the program.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration, self._closed = configuration, False
        self._connections = Connections(self, _options(configuration))

    @property
    def _http(self) -> httpx.Client:
        """Connections of this process. After a fork, those that were open before belong to the other process."""
        if self._closed:
            raise ClientClosed(self._configuration.url)
        connections = self._connections
        if not connections.usable:
            connections.close()
            connections = self._connections = Connections(self, _options(self._configuration))
        return connections.http

    def run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    reply = self._send(step)
                except (Unreachable, BadConfiguration) as problem:
                    step = steps.throw(problem)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def lines(self, request: Request, reader: LogReader) -> Iterator[LogLine]:
        """Yield the lines of a log as they arrive, also after broken connections."""
        while True:
            try:
                yield from self._lines(request, reader)
                if reader.complete:
                    return
                raise Unreachable(self._configuration.url, "the log stopped before its end", sent=True)
            except (Unreachable, Overloaded, Unavailable) as problem:
                delay = reader.resume(problem)
            time.sleep(delay)

    def _lines(self, request: Request, reader: LogReader) -> Iterator[LogLine]:
        with self._opened(request) as reply:
            if reply.status_code >= 300:
                raise error_of(_read(reply))
            for piece in reply.iter_raw():
                yield from reader.read(piece)

    def close(self) -> None:
        self._closed = True
        self._connections.close()

    def _send(self, request: Request) -> Reply:
        with self._opened(request) as reply:
            return _read(reply)

    @contextmanager
    def _opened(self, request: Request) -> Iterator[httpx.Response]:
        """Send a request, and yield its reply, whose body is not read yet."""
        http = self._http
        try:
            reply = http.send(http.build_request(**_parts(self._configuration, request)), stream=True)
            with closing(reply):
                _check_encoding(reply)
                yield reply
        except httpx.TransportError as error:
            raise _unreachable(self._configuration, error) from error


class AsyncTransport:
    """Connections of an asynchronous client. They belong to one event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        connections = httpx.AsyncHTTPTransport(**_options(configuration))
        self._http = httpx.AsyncClient(transport=connections, headers=HEADERS, trust_env=False)

    async def run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    reply = await self._send(step)
                except (Unreachable, BadConfiguration) as problem:
                    step = steps.throw(problem)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def lines(self, request: Request, reader: LogReader) -> AsyncIterator[LogLine]:
        """Yield the lines of a log as they arrive, also after broken connections."""
        while True:
            try:
                async with aclosing(self._lines(request, reader)) as lines:
                    async for line in lines:
                        yield line
                if reader.complete:
                    return
                raise Unreachable(self._configuration.url, "the log stopped before its end", sent=True)
            except (Unreachable, Overloaded, Unavailable) as problem:
                delay = reader.resume(problem)
            await asyncio.sleep(delay)

    async def _lines(self, request: Request, reader: LogReader) -> AsyncGenerator[LogLine]:
        async with self._opened(request) as reply:
            if reply.status_code >= 300:
                raise error_of(await _read_async(reply))
            async for piece in reply.aiter_raw():
                for line in reader.read(piece):
                    yield line

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, request: Request) -> Reply:
        async with self._opened(request) as reply:
            return await _read_async(reply)

    @asynccontextmanager
    async def _opened(self, request: Request) -> AsyncIterator[httpx.Response]:
        """Send a request, and yield its reply, whose body is not read yet."""
        if self._http.is_closed:
            raise ClientClosed(self._configuration.url)
        try:
            sent = self._http.build_request(**_parts(self._configuration, request))
            async with aclosing(await self._http.send(sent, stream=True)) as reply:
                _check_encoding(reply)
                yield reply
        except httpx.TransportError as error:
            raise _unreachable(self._configuration, error) from error


def _options(configuration: Configuration) -> dict[str, Any]:
    """Return the options of connections. Proxies and credentials of the environment do not apply."""
    return {"verify": configuration.tls(), "trust_env": False, "limits": LIMITS}


def _parts(configuration: Configuration, request: Request) -> dict[str, Any]:
    """Return the arguments that build a request of httpx. The date of a signature is that of the attempt."""
    headers = configuration.headers(request.method, request.target, request.headers, request.body)
    return {
        "method": request.method,
        "url": configuration.url + request.target,
        "content": request.body if request.method == "POST" else None,
        "headers": headers,
        "timeout": httpx.Timeout(min(request.limit, LONGEST_LIMIT), connect=min(CONNECT, request.limit), pool=None),
    }


def _check_encoding(reply: httpx.Response) -> None:
    """Raise ApiError if the body is compressed, which no request permits: a small one could fill the memory."""
    if encoding := reply.headers.get("content-encoding", ""):
        raise _foreign(reply, f"the reply is compressed ({encoding}), which the client has not permitted")


def _read(reply: httpx.Response) -> Reply:
    body = bytearray()
    for piece in reply.iter_raw():
        _add(reply, body, piece)
    return Reply(status=reply.status_code, headers=reply.headers, body=bytes(body))


async def _read_async(reply: httpx.Response) -> Reply:
    body = bytearray()
    async for piece in reply.aiter_raw():
        _add(reply, body, piece)
    return Reply(status=reply.status_code, headers=reply.headers, body=bytes(body))


def _add(reply: httpx.Response, body: bytearray, piece: bytes) -> None:
    body += piece
    if len(body) > LARGEST_REPLY:
        raise _foreign(reply, f"the reply has more than {LARGEST_REPLY >> 20} MiB")


def _foreign(reply: httpx.Response, problem: str) -> ApiError:
    status = reply.status_code
    return ApiError(status, f"HTTP {status}", f"{problem}: is {reply.url.host} a functiond engine?")


def _unreachable(configuration: Configuration, error: httpx.TransportError) -> Unreachable | BadConfiguration:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BadConfiguration(f"the certificate of {configuration.url} is not trusted ({text}): give ca_file")
    refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return Unreachable(configuration.url, text, sent=not refused)
