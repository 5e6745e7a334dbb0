"""Handles of invocations and groups, for synchronous programs and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from functiond.errors import BadArgument
from functiond.events import Event, Link
from functiond.operations import Operations, StoredGroup
from functiond.records import GroupRecord, LogLine, Member, Record
from functiond.steps import Steps
from functiond.transport import Transport
from functiond.waits import Awaited, Deadline

if TYPE_CHECKING:
    from functiond.async_transport import AsyncTransport

R = TypeVar("R", covariant=True)  #: result of a function
M = TypeVar("M", covariant=True)  #: result of a member of a group


class AnyHandle(Awaited):
    """Asynchronous invocation that the engine has stored."""

    def __init__(self, operations: Operations, transport: Any, function: str, request_id: str, kind: Any = Any) -> None:
        self.function, self.request_id = function, request_id
        self._operations, self._transport, self._kind = operations, transport, kind

    def _result(self, timeout: float | None) -> Steps[Any]:
        outcome, self.outcome = self.outcome, None
        if outcome is None or not outcome.status:
            outcome = yield from self._operations.outcome(self.function, self.request_id, Deadline(timeout))
        return outcome.value(self._kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.function!r}, {self.request_id!r})"


class Handle(AnyHandle, Generic[R]):
    """Asynchronous invocation that the engine has stored."""

    _transport: Transport

    def result(self, timeout: float | None = None) -> R:
        """Wait for the end of the invocation and return what the function returned.

        ``timeout`` is in seconds; without it, the wait has no end. Raises ResultTimeout, or InvocationFailed if the
        function failed. The wait goes on while the engine restarts.
        """
        result: R = self._transport.run(self._result(timeout))
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


class AsyncHandle(AnyHandle, Generic[R]):
    """Asynchronous invocation that the engine has stored. Its methods are those of ``Handle``."""

    _transport: AsyncTransport

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Wait for the end of the invocation and return what the function returned, like ``Handle.result``."""
        result: R = await self._transport.run(self._result(timeout))
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


class AnyGroupHandle(AnyHandle):
    """Group that the engine has stored, and handle of the last call that follows it."""

    def __init__(self, operations: Operations, transport: Any, group: StoredGroup) -> None:
        last = group.last or Link("", Event())
        super().__init__(operations, transport, last.function, group.request_id, last.returns)
        self.id, self._kinds = group.id, group.kinds

    def _result(self, timeout: float | None) -> Steps[Any]:
        if not self.request_id:
            raise BadArgument(f"no call follows the group {self.id}: use results(), or group(...).then(...)")
        return super()._result(timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"


class GroupHandle(AnyGroupHandle, Handle[R], Generic[M, R]):
    """Group that the engine has stored, whose members return an M, and handle of the last call that follows it."""

    def results(self, timeout: float | None = None) -> Iterator[M]:
        """Yield the results of the members in their order, as soon as they have ended. Raises their failures."""
        handle = partial(Handle[M], self._operations, self._transport)
        for ended in self._operations.member_results(self.id, handle, self._kinds, Deadline(timeout)):
            for member in self._transport.run(ended):
                yield member.result()

    def members(self) -> Iterator[Member]:
        """Yield the members in their order, as they are now."""
        for page in self._operations.members(self.id):
            yield from map(Member.of, self._transport.run(page))

    def progress(self) -> GroupRecord:
        """Return the state of the group and the numbers of its members."""
        return self._transport.run(self._operations.group(self.id))

    def status(self) -> str:
        """Return FILLING, RUNNING, SUCCESS, FAIL, CANCELLED or ABANDONED."""
        return self.progress().state

    def cancel(self) -> None:
        """Cancel the members that have not ended, and the calls that follow them."""
        self._transport.run(self._operations.cancel_group(self.id))


class AsyncGroupHandle(AnyGroupHandle, AsyncHandle[R], Generic[M, R]):
    """Group that the engine has stored. Its methods are those of ``GroupHandle``."""

    async def results(self, timeout: float | None = None) -> AsyncIterator[M]:  # noqa: ASYNC109
        handle = partial(AsyncHandle[M], self._operations, self._transport)
        for ended in self._operations.member_results(self.id, handle, self._kinds, Deadline(timeout)):
            for member in await self._transport.run(ended):
                yield await member.result()

    async def members(self) -> AsyncIterator[Member]:
        for page in self._operations.members(self.id):
            for member in await self._transport.run(page):
                yield Member.of(member)

    async def progress(self) -> GroupRecord:
        return await self._transport.run(self._operations.group(self.id))

    async def status(self) -> str:
        return (await self.progress()).state

    async def cancel(self) -> None:
        await self._transport.run(self._operations.cancel_group(self.id))
