"""TCP proxy between an agent and the engine, whose two directions can be cut as a network is cut.

A cut direction carries nothing, not even the end of a connection. What was sent meanwhile arrives when the cut ends, as
the kernel would send it again. New connections are accepted and carry nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TO_ENGINE, TO_AGENT = "to the engine", "to the agent"  #: directions
_PIECE = 64 << 10


class Proxy:
    """Proxy of one node. ``cut`` and ``heal`` may be called in any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int) -> None:
        self._loop, self._target = loop, target
        self._open = {TO_ENGINE: asyncio.Event(), TO_AGENT: asyncio.Event()}
        self._server: asyncio.Server
        self._tasks = set[asyncio.Task[None]]()  #: the loop itself does not keep them
        self.port = 0

    async def listen(self) -> None:
        for gate in self._open.values():
            gate.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks)

    def cut(self, *directions: str) -> None:
        for direction in directions:
            self._loop.call_soon_threadsafe(self._open[direction].clear)

    def heal(self) -> None:
        for gate in self._open.values():
            self._loop.call_soon_threadsafe(gate.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            try:
                for gate in self._open.values():
                    await gate.wait()  # a connection needs both directions
                above, engine = await asyncio.open_connection("127.0.0.1", self._target, limit=_PIECE)
                try:
                    await asyncio.gather(
                        _pass_on(reader, engine, self._open[TO_ENGINE]), _pass_on(above, writer, self._open[TO_AGENT])
                    )
                finally:
                    engine.transport.abort()
            finally:
                writer.transport.abort()
                self._tasks.discard(task)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    """Pass on data and its end, while the gate is open. Data for an end that has gone is dropped."""
    try:
        while data := await reader.read(_PIECE):
            await gate.wait()
            with suppress(OSError):
                writer.write(data)
                await writer.drain()
    except OSError:
        pass
    await gate.wait()
    with suppress(OSError):
        writer.write_eof()


@contextmanager
def proxies(target: int, count: int) -> Iterator[list[Proxy]]:
    """Yield ``count`` proxies to a port, which run in a thread of their own until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = [Proxy(loop, target) for _ in range(count)]
    try:
        for proxy in made:
            asyncio.run_coroutine_threadsafe(proxy.listen(), loop).result()
        yield made
    finally:
        for proxy in made:
            asyncio.run_coroutine_threadsafe(proxy.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
