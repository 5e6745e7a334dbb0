"""Client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from functiond.batching import enqueue_many
from functiond.configured import Configured
from functiond.errors import BatchError
from functiond.events import Event
from functiond.operations import Operations
from functiond.records import LogLine, Record
from functiond.transport import AsyncTransport

R = TypeVar("R")


class AsyncHandle(Generic[R]):
    """Asynchronous invocation that the engine has stored."""

    def __init__(
        self, operations: Operations, transport: AsyncTransport, function: str, request_id: str, kind: Any = Any
    ) -> None:
        self.function, self.request_id = function, request_id
        self._operations, self._transport, self._kind = operations, transport, kind

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Wait for the end of the invocation and return what the function returned.

        ``timeout`` is in seconds; without it, the wait has no end. Raises ResultTimeout, or InvocationFailed if the
        function failed. The wait goes on while the engine restarts.
        """
        found: R = await self._transport.run(
            self._operations.result(self.function, self.request_id, self._kind, timeout),
        )
        return found

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

    def __repr__(self) -> str:
        return f"AsyncHandle({self.function!r}, {self.request_id!r})"


class AsyncClient(Configured[AsyncTransport]):
    """Client for asyncio. It belongs to the event loop on which it is first used."""

    def _connect(self) -> AsyncTransport:
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
        """Queue an invocation of a function with an event. It is on the engine's disk when this method returns.

        ``function`` is a name or URN, ``event`` any value that JSON can hold. Options are those of ``Event``.
        ``returns`` is the type of the handle's result.
        """
        options = Event(event=event, key=key, delay=delay, priority=priority, ordering_key=ordering_key)
        request_id = await self._transport.run(self._operations.enqueue(function, options))
        return self.handle(function, request_id, returns=returns)

    async def enqueue_many(
        self, function: str, events: Iterable[object], *, returns: Any = Any
    ) -> list[AsyncHandle[Any]]:
        """Queue an invocation for each event, in few requests. Return their handles in the order of the events.

        An ``Event`` has options of its own. Raises BatchError if events were refused; it has the handles of the others.
        """
        sent = await self._transport.run(enqueue_many(self._operations, function, events))
        count = len(sent.ids) + len(sent.errors)
        ids = [sent.ids.get(position) for position in range(count)]
        handles = [None if one is None else self.handle(function, one, returns=returns) for one in ids]
        if sent.errors:
            raise BatchError(handles, sent.errors)
        return [one for one in handles if one is not None]

    async def call(
        self,
        function: str,
        event: object = None,
        *,
        returns: Any = Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        """Run a function and return its result. Raises InvocationFailed if it fails.

        ``timeout`` is in seconds; without it, they are 100 and the client's ``timeout``. Raises Unreachable then.
        """
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
