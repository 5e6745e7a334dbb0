"""HTTP connections of clients for asyncio. This module alone needs httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import httpx

from functiond.configuration import Configuration
from functiond.errors import ClientClosed, Overloaded, Unavailable, Unreachable
from functiond.records import LogLine, LogReader
from functiond.steps import LONGEST_LIMIT, Reply, Request, Sleep, Steps, error_of
from functiond.transport import AGENT, CONNECT, MOST_IDLE, add, check_encoding, not_trusted

T = TypeVar("T")


class AsyncTransport:
    """Connections of an asynchronous client. They belong to one event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration, tls = configuration, configuration.tls()
        # Every long poll needs a connection. Proxies and credentials of the environment do not apply.
        self._http = httpx.AsyncClient(
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=MOST_IDLE),
            verify=False if tls is None else tls,  # without https, no certificates are loaded
            trust_env=False,
        )

    async def run(self, steps: Steps[T]) -> T:
        outcome: Reply | Unreachable | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._outcome(step)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _outcome(self, request: Request) -> Reply | Unreachable:
        try:
            async with self._opened(request) as reply:
                return await self._read(reply)
        except Unreachable as problem:
            return problem

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
                raise error_of(await self._read(reply))
            async for piece in reply.aiter_raw():
                for line in reader.read(piece):
                    yield line

    async def close(self) -> None:
        await self._http.aclose()

    async def _read(self, reply: httpx.Response) -> Reply:
        body = bytearray()
        async for piece in reply.aiter_raw():
            add(self._configuration, reply.status_code, body, piece)
        return Reply(status=reply.status_code, headers=dict(reply.headers), body=bytes(body))

    @asynccontextmanager
    async def _opened(self, request: Request) -> AsyncIterator[httpx.Response]:
        """Send a request, and yield its reply, whose body is not read yet."""
        configuration, method, limit = self._configuration, request.method, request.limit
        if self._http.is_closed:
            raise ClientClosed(configuration.url)
        try:
            sent = self._http.build_request(
                method,
                configuration.url + request.target,
                content=request.body or None,
                headers=configuration.headers(method, request.target, request.headers, request.body),
                timeout=httpx.Timeout(min(limit, LONGEST_LIMIT), connect=min(CONNECT, limit), pool=None),
            )
            async with aclosing(await self._http.send(sent, stream=True)) as reply:
                check_encoding(configuration, reply.status_code, reply.headers.get("content-encoding", ""))
                yield reply
        except httpx.TransportError as error:
            problem = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in problem:
                raise not_trusted(configuration, problem) from error
            refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise Unreachable(configuration.url, problem, sent=not refused) from error
