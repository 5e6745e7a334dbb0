"""Connections to servers: client libraries, deadlines for silent servers, SSL contexts, and shared clients."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import anyio

from engine import SettingsError, not_strict

PEM = "-----BEGIN "  #: beginning of certificates and keys as text


def load_library(name: str, user: str, extra: str) -> Any:
    """Return the module of a client library. Raises SettingsError, which names the extra, if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise SettingsError(f"{user} needs the extra {extra}: pip install '.[{extra}]' in the clone") from None


@contextmanager
def deadline(problem: str, seconds: float) -> Iterator[None]:
    """Raise ConnectionError with the text ``problem`` if the block takes more than ``seconds``."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise ConnectionError(f"{problem} within {seconds:.0f} s") from None


def client_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Return a context that checks certificates and host names. Each argument is PEM text, or the path of a file.

    Without ``ca`` the machine's certificate authorities are trusted; without ``cert`` no client certificate is sent.
    Raises OSError, which names the file, if one cannot be read or used.
    """
    given = ca
    try:
        context = not_strict(ssl.create_default_context(cadata=_pem(ca) or None))
        if cert:
            with NamedTemporaryFile("w") as file:  # OpenSSL reads these from files only
                file.write(f"{_pem(cert)}\n{_pem(key)}")
                file.flush()
                given = cert
                context.load_cert_chain(file.name, password="")  # without, OpenSSL asks at a terminal
    except ssl.SSLError as error:
        raise OSError(f"TLS cannot use {'the PEM text' if _pem(given) == given else given}: {error}") from None
    return context


def _pem(given: str) -> str:
    return given if not given or given.lstrip().startswith(PEM) else Path(given).read_text("ascii", "ignore")


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
