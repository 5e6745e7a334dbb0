"""One client of a store for all requests: made when it is first needed, replaced once it has failed.

Making a client costs tens of milliseconds of CPU, most of it for TLS, and its connections can be used again. Requests
under way on a failed client go on; it is closed when the last of them ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import anyio


class Lease:
    """A client, and the number of requests that use it."""

    def __init__(self, client: Any, close: Callable[[], Awaitable[None]]) -> None:
        self.client = client
        self.users = 0
        self.failed = False
        self._close = close

    def fail(self) -> None:
        """Give this client to no further request."""
        self.failed = True

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._close()


class SharedClient:
    """``make`` gives a client that opens when it is entered."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make = make
        self._making = anyio.Lock()
        self._lease: Lease | None = None
        self._holders = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the client between requests while the block is entered. The last holder closes it."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders and self._lease is not None:
                lease, self._lease = self._lease, None
                await lease.close()

    @asynccontextmanager
    async def target(self) -> AsyncIterator[Lease]:
        """Lend the client to one request. Enter this while ``held``."""
        lease = await self._usable()
        lease.users += 1
        try:
            yield lease
        finally:
            lease.users -= 1
            if lease.failed and not lease.users:
                if lease is self._lease:
                    self._lease = None
                await lease.close()

    async def _usable(self) -> Lease:
        if self._lease is None or self._lease.failed:
            async with self._making:
                if self._lease is None or self._lease.failed:
                    opened = AsyncExitStack()
                    client = await opened.enter_async_context(self._make())
                    self._lease = Lease(client, opened.aclose)
        return self._lease
