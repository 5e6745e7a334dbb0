"""Clients for synchronous programs and for asyncio, with the handles of their invocations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from functiond.configuration import URL, Configuration, checked_url, environment
from functiond.errors import BatchError
from functiond.events import Event
from functiond.operations import Operations, Sent
from functiond.records import LogLine, Record
from functiond.transport import Transport

if TYPE_CHECKING:
    from functiond.async_transport import AsyncTransport

R = TypeVar("R")  #: result of a function
H = TypeVar("H")  #: handle
C = TypeVar("C")  #: connections


class AnyHandle(Generic[C]):
    """Asynchronous invocation that the engine has stored, on connections of the type C."""

    def __init__(self, operations: Operations, transport: C, function: str, request_id: str, kind: Any = Any) -> None:
        self.function, self.request_id = function, request_id
        self._operations, self._transport, self._kind = operations, transport, kind

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.function!r}, {self.request_id!r})"


class Handle(AnyHandle[Transport], Generic[R]):
    """Asynchronous invocation that the engine has stored."""

    def result(self, timeout: float | None = None) -> R:
        """Wait for the end of the invocation and return what the function returned.

        ``timeout`` is in seconds; without it, the wait has no end. Raises ResultTimeout, or InvocationFailed if the
        function failed. The wait goes on while the engine restarts.
        """
        steps = self._operations.result(self.function, self.request_id, self._kind, timeout)
        result: R = self._transport.run(steps)
        return result

    def record(self) -> Record:
        """Return all that the engine tells about the invocation now."""
        return self._transport.run(self._operations.record(self.function, self.request_id))

    def status(self) -> str:
        """Return WAIT, RUNNING, SUCCESS, FAIL or DISCARD."""
        return self.record().status

    def cancel(self) -> None:
        """Cancel the invocation. Raises BadRequest if it has already ended."""
        self._transport.run(self._operations.cancel(self.function, self.request_id))

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield the log lines of the newest attempt; with ``follow``, as they are written, until the end."""
        return self._transport.lines(*self._operations.logs(self.function, self.request_id, follow=follow))


class AsyncHandle(AnyHandle["AsyncTransport"], Generic[R]):
    """Asynchronous invocation that the engine has stored. Its methods are those of ``Handle``."""

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Wait for the end of the invocation and return what the function returned, like ``Handle.result``."""
        steps = self._operations.result(self.function, self.request_id, self._kind, timeout)
        result: R = await self._transport.run(steps)
        return result

    async def record(self) -> Record:
        """Return all that the engine tells about the invocation now."""
        return await self._transport.run(self._operations.record(self.function, self.request_id))

    async def status(self) -> str:
        """Return WAIT, RUNNING, SUCCESS, FAIL or DISCARD."""
        return (await self.record()).status

    async def cancel(self) -> None:
        """Cancel the invocation. Raises BadRequest if it has already ended."""
        await self._transport.run(self._operations.cancel(self.function, self.request_id))

    def logs(self, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Yield the log lines of the newest attempt; with ``follow``, as they are written, until the end."""
        return self._transport.lines(*self._operations.logs(self.function, self.request_id, follow=follow))


class AnyClient(Generic[C]):
    """Client of one engine for one project, on connections of the type C.

    Parameters that are None come from the environment: ``FUNCTIOND_URL``, ``FUNCTIOND_TOKEN``, and so on; credentials
    only if none are given. Give a ``token``, or an access key, which signs requests; a ``token`` beside a key is the
    security token of a temporary key. ``ca_file`` is a PEM file with the certificates to trust. Broken connections and
    refusals with 429 and 503 are tried again ``retries`` times, for ``timeout`` seconds at most. Raises
    BadConfiguration.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        project: str | None = None,
        ca_file: str | None = None,
        retries: int = 5,
        timeout: float = 60.0,
    ) -> None:
        if token is None and access_key is None and secret_key is None:
            access_key, secret_key = environment("ACCESS_KEY"), environment("SECRET_KEY")
            token = environment("SECURITY_TOKEN" if access_key else "TOKEN")
        self.configuration = Configuration(
            url=checked_url(url or environment("URL") or URL),
            project=project or environment("PROJECT") or "default",
            token=token or "",
            access_key=access_key or "",
            secret_key=secret_key or "",
            ca_file=environment("CA_FILE") if ca_file is None else ca_file,
            retries=retries,
            timeout=timeout,
        )
        self._operations = Operations(self.configuration)
        self._transport = self._connect()

    def _connect(self) -> C:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.configuration.url!r}, project={self.configuration.project!r})"


class Client(AnyClient[Transport]):
    """Client for synchronous programs. Threads may share it, and processes that are forked."""

    def _connect(self) -> Transport:
        return Transport(self.configuration)

    def enqueue(
        self,
        function: str,
        event: object = None,
        *,
        key: str | None = None,
        delay: float | None = None,
        priority: int | None = None,
        ordering_key: str | None = None,
        returns: Any = Any,
    ) -> Handle[Any]:
        """Queue an invocation of a function with an event. It is on the engine's disk when this method returns.

        ``function`` is a name or URN, ``event`` any value that JSON can hold. Options are those of ``Event``.
        ``returns`` is the type of the handle's result.
        """
        options = Event(event=event, key=key, delay=delay, priority=priority, ordering_key=ordering_key)
        request_id = self._transport.run(self._operations.enqueue(function, options))
        return self.handle(function, request_id, returns=returns)

    def enqueue_many(self, function: str, events: Iterable[object], *, returns: Any = Any) -> list[Handle[Any]]:
        """Queue an invocation for each event, in few requests. Return their handles in the order of the events.

        An ``Event`` has options of its own. Raises BatchError if events were refused; it has the handles of the others.
        """
        sent = self._transport.run(self._operations.enqueue_many(function, events))
        return _handles(sent, lambda request_id: self.handle(function, request_id, returns=returns))

    def call(self, function: str, event: object = None, *, returns: Any = Any, timeout: float | None = None) -> Any:
        """Run a function and return its result. Raises InvocationFailed if it fails.

        ``timeout`` is in seconds; without it, they are 100 and the client's ``timeout``. Raises Unreachable then.
        """
        return self._transport.run(self._operations.call(function, event, returns, timeout))

    def handle(self, function: str, request_id: str, *, returns: Any = Any) -> Handle[Any]:
        """Return the handle of an invocation that was queued before."""
        return Handle(self._operations, self._transport, function, request_id, returns)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(AnyClient["AsyncTransport"]):
    """Client for asyncio, which needs httpx. It belongs to the event loop on which it is first used.

    Its methods are those of ``Client``.
    """

    def _connect(self) -> AsyncTransport:
        try:
            from functiond.async_transport import AsyncTransport
        except ModuleNotFoundError as error:
            if error.name != "httpx":
                raise
            raise ImportError("AsyncClient needs httpx: pip install 'functiond[client]'") from None
        return AsyncTransport(self.configuration)

    async def enqueue(
        self,
        function: str,
        event: object = None,
        *,
        key: str | None = None,
        delay: float | None = None,
        priority: int | None = None,
        ordering_key: str | None = None,
        returns: Any = Any,
    ) -> AsyncHandle[Any]:
        """Queue an invocation of a function with an event, like ``Client.enqueue``."""
        options = Event(event=event, key=key, delay=delay, priority=priority, ordering_key=ordering_key)
        request_id = await self._transport.run(self._operations.enqueue(function, options))
        return self.handle(function, request_id, returns=returns)

    async def enqueue_many(
        self, function: str, events: Iterable[object], *, returns: Any = Any
    ) -> list[AsyncHandle[Any]]:
        """Queue an invocation for each event, in few requests, like ``Client.enqueue_many``."""
        sent = await self._transport.run(self._operations.enqueue_many(function, events))
        return _handles(sent, lambda request_id: self.handle(function, request_id, returns=returns))

    async def call(
        self,
        function: str,
        event: object = None,
        *,
        returns: Any = Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        """Run a function and return its result, like ``Client.call``."""
        return await self._transport.run(self._operations.call(function, event, returns, timeout))

    def handle(self, function: str, request_id: str, *, returns: Any = Any) -> AsyncHandle[Any]:
        """Return the handle of an invocation that was queued before."""
        return AsyncHandle(self._operations, self._transport, function, request_id, returns)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _handles(sent: Sent, handle: Callable[[str], H]) -> list[H]:
    """Return handles in the order of the events. Raises BatchError with those of the others if some were refused."""
    ids = [sent.ids.get(position) for position in range(len(sent.ids) + len(sent.errors))]
    handles = [None if request_id is None else handle(request_id) for request_id in ids]
    if sent.errors:
        raise BatchError(handles, sent.errors)
    return [existing for existing in handles if existing is not None]
