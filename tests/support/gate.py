"""Proxy in front of a server. Can abort the connections of one client and delay its new ones."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

LIMIT = 1 << 16


class Gate:
    def __init__(self) -> None:
        self.port = self._to = 0
        self._name = b""
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._streams: dict[asyncio.Task[None], tuple[bytes, list[StreamWriter]]] = {}

    def lead_to(self, port: int) -> None:
        self._to = port

    def shut(self, name: bytes) -> None:
        """Abort the connections whose first bytes contain ``name``. New ones with that name wait for ``open``."""
        self._name = name
        self._is_open.clear()
        for first, writers in self._streams.values():
            if name in first:
                for writer in writers:
                    writer.transport.abort()

    def open(self) -> None:
        self._is_open.set()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        with suppress(OSError):
            first = await reader.read(LIMIT)
            if self._name in first:
                await self._is_open.wait()
            reply, request = await asyncio.open_connection("127.0.0.1", self._to)
            self._streams[task] = first, [writer, request]
            request.write(first)
            async with anyio.create_task_group() as both:
                both.start_soon(_copy, reader, request)
                both.start_soon(_copy, reply, writer)
        self._streams.pop(task, None)


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    """Copy until the reader ends, then close the writer."""
    with suppress(OSError):
        while some := await reader.read(LIMIT):
            writer.write(some)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    """Open a gate that listens until the block is left."""
    made = Gate()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
