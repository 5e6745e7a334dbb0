"""Client that all requests to one server share. Created for the first request, and replaced after a failure.

Creating a client is expensive, mostly for TLS, and an open client reuses its connections. After a failure, requests
that already run continue with the failed client. Their last one closes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import anyio


class Lease:
    """Client, the number of requests that use it, and the mark that it has failed."""

    def __init__(self, client: Any, close: Callable[[], Awaitable[None]]) -> None:
        self.client = client
        self.users = 0
        self.failed = False  #: later requests get a new client
        self._close = close

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._close()


class SharedClient:
    """Owner of the shared client. ``make`` returns a context manager that opens a new client."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make = make
        self._making = anyio.Lock()
        self._lease: Lease | None = None
        self._holders = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the client open between requests until the block ends.

        Of overlapping blocks, the last closes the client.
        """
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                await self.close()

    async def close(self) -> None:
        """Close the client. The next request opens another one."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.close()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """Use the client for one request, which ends with the block. Somebody must hold or close the client later."""
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
