"""Clients for synchronous programs and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from functiond.configuration import URL, Configuration, checked_url, environment
from functiond.errors import BadArgument, BatchError
from functiond.events import Chain, Event, Link, Options
from functiond.handles import AsyncGroupHandle, AsyncHandle, GroupHandle, Handle
from functiond.operations import Operations, Sent, StoredGroup
from functiond.records import Member
from functiond.transport import Transport
from functiond.waits import Deadline

if TYPE_CHECKING:
    from functiond.async_transport import AsyncTransport

R = TypeVar("R")  #: result of a function
H = TypeVar("H")  #: handle
C = TypeVar("C")  #: connections


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
        self, function: str | Chain, event: object = None, *, returns: Any = Any, **options: Unpack[Options]
    ) -> Handle[Any]:
        """Queue an invocation of a function with an event. It is on the engine's disk when this method returns.

        ``function`` is a name or URN, ``event`` any value that JSON can hold. Options are those of ``Event``.
        ``returns`` is the type of the handle's result. A ``Call`` may take the place of all.
        """
        chain = _chain(function, event, returns, options)
        last, request_id = chain.links[-1], self._transport.run(self._operations.enqueue(chain))
        return self.handle(last.function, request_id, returns=last.returns)

    def enqueue_many(self, function: str, events: Iterable[object], *, returns: Any = Any) -> list[Handle[Any]]:
        """Queue an invocation for each event, in few requests. Return their handles in the order of the events.

        An ``Event`` has options of its own. Raises BatchError if events were refused; it has the handles of the others.
        """
        chains = _chains(function, events, returns)
        return _handles(chains, self._transport.run(self._operations.enqueue_many(chains)), self.handle)

    def enqueue_group(
        self, calls: Iterable[Chain], then: Sequence[Link], *, require: str, key: str | None
    ) -> GroupHandle[Any, Any]:
        """Queue calls as a group, and the calls that follow it."""
        group = self._transport.run(self._operations.enqueue_group(calls, then, require=require, key=key))
        return GroupHandle(self._operations, self._transport, group)

    def call(self, function: str, event: object = None, *, returns: Any = Any, timeout: float | None = None) -> Any:
        """Run a function and return its result. Raises InvocationFailed if it fails.

        ``timeout`` is in seconds; without it, they are 100 and the client's ``timeout``. Raises Unreachable then.
        """
        return self._transport.run(self._operations.call(function, event, returns, timeout))

    def handle(self, function: str, request_id: str, *, returns: Any = Any) -> Handle[Any]:
        """Return the handle of an invocation that was queued before."""
        return Handle(self._operations, self._transport, function, request_id, returns)

    def results(self, handles: Iterable[Handle[R]], timeout: float | None = None) -> Iterator[R]:
        """Yield the results of invocations in the order of their handles. Raises their failures.

        Few requests wait for the ends of all. ``timeout`` is in seconds, for all. Raises ResultTimeout.
        """
        for ended in self._operations.ended(handles, Deadline(timeout), ordered=True):
            for handle in self._transport.run(ended):
                yield handle.result()

    def as_completed(self, handles: Iterable[Handle[R]], timeout: float | None = None) -> Iterator[Handle[R]]:
        """Yield the handles of invocations that have ended, in the order of the ends, until all have.

        ``result`` of such a handle does not wait. ``timeout`` is that of ``results``.
        """
        for ended in self._operations.ended(handles, Deadline(timeout), ordered=False):
            yield from self._transport.run(ended)

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
        self, function: str | Chain, event: object = None, *, returns: Any = Any, **options: Unpack[Options]
    ) -> AsyncHandle[Any]:
        """Queue an invocation of a function with an event, like ``Client.enqueue``."""
        chain = _chain(function, event, returns, options)
        last, request_id = chain.links[-1], await self._transport.run(self._operations.enqueue(chain))
        return self.handle(last.function, request_id, returns=last.returns)

    async def enqueue_many(
        self, function: str, events: Iterable[object], *, returns: Any = Any
    ) -> list[AsyncHandle[Any]]:
        """Queue an invocation for each event, in few requests, like ``Client.enqueue_many``."""
        chains = _chains(function, events, returns)
        return _handles(chains, await self._transport.run(self._operations.enqueue_many(chains)), self.handle)

    async def enqueue_group(
        self, calls: Iterable[Chain], then: Sequence[Link], *, require: str, key: str | None
    ) -> AsyncGroupHandle[Any, Any]:
        """Queue calls as a group, and the calls that follow it."""
        group = await self._transport.run(self._operations.enqueue_group(calls, then, require=require, key=key))
        return AsyncGroupHandle(self._operations, self._transport, group)

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

    async def results(self, handles: Iterable[AsyncHandle[R]], timeout: float | None = None) -> AsyncIterator[R]:  # noqa: ASYNC109
        """Yield the results of invocations in the order of their handles. Raises their failures.

        Few requests wait for the ends of all. ``timeout`` is in seconds, for all. Raises ResultTimeout.
        """
        for ended in self._operations.ended(handles, Deadline(timeout), ordered=True):
            for handle in await self._transport.run(ended):
                yield await handle.result()

    async def as_completed(
        self,
        handles: Iterable[AsyncHandle[R]],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[AsyncHandle[R]]:
        """Yield the handles of invocations that have ended, in the order of the ends, until all have.

        ``result`` of such a handle does not wait. ``timeout`` is that of ``results``.
        """
        for ended in self._operations.ended(handles, Deadline(timeout), ordered=False):
            for handle in await self._transport.run(ended):
                yield handle

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Group:
    """Group whose members have ended: the first argument of the function that follows it, ``event`` in raw handlers."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        document = event["group"]
        self.id: str = document["id"]
        self.counts: dict[str, int] = {name: document[name] for name in ("total", "done", "failed")}

    def members(self) -> Iterator[Member]:
        """Yield the members in their order."""
        client = Client()
        return GroupHandle[Any, Any](client._operations, client._transport, StoredGroup(self.id)).members()


def _chain(function: str | Chain, event: object, returns: Any, options: Options) -> Chain:
    return function if isinstance(function, Chain) else Chain((Link(function, Event(event=event, **options), returns),))


def _chains(function: str, events: Iterable[object], returns: Any) -> list[Chain]:
    if isinstance(events, Mapping | str | bytes):
        raise BadArgument(f"events is a {type(events).__name__}: give a list of events")
    chains = []
    for event in events:
        given = event if isinstance(event, Event) else None
        chain = event if isinstance(event, Chain) else Chain((Link(function, given or Event(event=event), returns),))
        if chain.links[0].function != function:
            raise BadArgument(f"this is a call of {chain.links[0].function}, not of {function}: enqueue it alone")
        chains.append(chain)
    return chains


def _handles(chains: Sequence[Chain], sent: Sent, handle: Callable[..., H]) -> list[H]:
    """Return handles in the order of the events. Raises BatchError with those of the others if some were refused."""
    lasts = [(chain.links[-1], sent.ids.get(position)) for position, chain in enumerate(chains)]
    handles = [None if id_ is None else handle(last.function, id_, returns=last.returns) for last, id_ in lasts]
    if sent.errors:
        raise BatchError(handles, sent.errors)
    return [existing for existing in handles if existing is not None]
