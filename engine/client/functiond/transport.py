"""HTTP connections of clients, which run the steps of operations: one for threads, one for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import httpx

from functiond.configuration import Configuration
from functiond.connections import HEADERS, Connections
from functiond.errors import BadConfiguration, ClientClosed, Overloaded, Unavailable, Unreachable
from functiond.log_stream import LogReader
from functiond.records import LogLine
from functiond.steps import LONGEST_LIMIT, Reply, Request, Sleep, Steps, error_of

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
                    step = steps.send(_reply(reply))
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
        reply = self._send(request, stream=True)
        try:
            if reply.status_code >= 300:
                reply.read()
                raise error_of(_reply(reply))
            for piece in reply.iter_bytes():
                yield from reader.read(piece)
        except httpx.TransportError as error:
            raise _unreachable(self._configuration, error) from error
        finally:
            reply.close()

    def close(self) -> None:
        self._closed = True
        self._connections.close()

    def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        http = self._http
        try:
            return http.send(http.build_request(**_parts(self._configuration, request)), stream=stream)
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
                    step = steps.send(_reply(reply))
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
        reply = await self._send(request, stream=True)
        try:
            if reply.status_code >= 300:
                await reply.aread()
                raise error_of(_reply(reply))
            async for piece in reply.aiter_bytes():
                for line in reader.read(piece):
                    yield line
        except httpx.TransportError as error:
            raise _unreachable(self._configuration, error) from error
        finally:
            await reply.aclose()

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        if self._http.is_closed:
            raise ClientClosed(self._configuration.url)
        try:
            return await self._http.send(
                self._http.build_request(**_parts(self._configuration, request)), stream=stream
            )
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


def _reply(reply: httpx.Response) -> Reply:
    return Reply(status=reply.status_code, headers=reply.headers, body=reply.content)


def _unreachable(configuration: Configuration, error: httpx.TransportError) -> Unreachable | BadConfiguration:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BadConfiguration(f"the certificate of {configuration.url} is not trusted ({text}): give ca_file")
    refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return Unreachable(configuration.url, text, sent=not refused)
