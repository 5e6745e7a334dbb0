"""Protocols between the engine and plugins: sources of triggers, plugin services, and what the engine offers both.

A trigger's source runs from when the trigger is created or enabled until it is changed, disabled or deleted. An
exception that a source raises is shown in the trigger's state, and the source is restarted after a delay.

- A *pull* source reads an external store. It passes events to ``accept_batch`` together with the cursors behind them.
- A *push* source receives events from clients and passes each to ``accept``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from engine.logs.feed import LogFeed
from engine.model.clock import Clock
from engine.model.invocation import Mode, Outcome
from engine.protocols.audit import Audit
from engine.protocols.operation import Operation

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

#: Bytes of one event (the platform's limit of 6 MB); larger events are rejected permanently.
EVENT_LIMIT = 6 << 20

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


#: ASGI extension of this engine: ``scope["extensions"][WHOLE_REPLY]["write"](status, headers, body)`` writes a reply
#: in one piece, at half the cost of two messages. If it returns False, nothing was written: send the messages.
WHOLE_REPLY = "functiond.whole_reply"


class Event(Struct, frozen=True, kw_only=True):
    """Event of a trigger. Invokes the function once."""

    payload: bytes  #: one JSON value
    idempotency_key: str = ""  #: an event whose key was used within a day is a duplicate and starts no invocation
    headers: Mapping[bytes, bytes] | None = None  #: HTTP headers, names in lower case; rules of an alias may match them
    hops: int = 0  #: number of functions that caused this event, if the source can count them


class Store(Protocol):
    """Durable tables of one plugin: small rows under text keys, sorted by key."""

    async def get(self, table: str, key: str) -> bytes | None: ...

    async def scan(
        self, table: str, *, after: str = "", until: str = "", limit: int = 1000, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        """Return rows with keys above ``after`` and below ``until`` (if given).

        Keys ascend, or descend if ``newest``.
        """
        ...

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        """Put and delete rows in one transaction, which is on disk when this returns.

        Raises NotStored and OutcomeUnknown. Raises DiskLow for rows to put when free disk space is low.
        """
        ...

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        """Delete up to ``limit`` rows with keys above ``after`` and below ``until``; return their number."""
        ...


class PushRequest(Struct, frozen=True, kw_only=True):
    """HTTP request to a mounted path."""

    method: str
    path: str  #: rest of the path below the mount: empty, or starts with ``/``
    query: str
    headers: Mapping[bytes, bytes]  #: names in lower case; a repeated header has its last value
    body: bytes
    client: str = ""  #: address of the sender
    project: str = ""  #: project of the credentials, if credentials are required


class PushReply(Struct, frozen=True, kw_only=True):
    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


#: Returns the reply to a request. Every FunctiondError becomes a reply: Overloaded 429 and Unavailable 503, both with
#: Retry-After.
PushHandler = Callable[[PushRequest], Awaitable[PushReply]]


class Routes(Protocol):
    """HTTP routes of one plugin: paths on the API's listener, and separate listeners."""

    def mount(
        self,
        path: str,
        handler: PushHandler,
        *,
        signed: bool = False,
        operations: Sequence[Operation] = (),
        limit: int = EVENT_LIMIT,
    ) -> AbstractContextManager[str]:
        """Serve ``/triggers/<plugin><path>`` and all paths below it inside the block; yield the whole path.

        The longest mounted path wins. If two mounts have the same path, the later one wins until its block ends. The
        handler must authenticate senders itself. If ``signed``, requests need the engine's own credentials instead,
        where the engine requires any. ``limit`` is the maximum size of a body in bytes. ``operations`` are added to
        the API's OpenAPI document.
        """
        ...

    def claim(
        self, *heads: str, handler: PushHandler, operations: Sequence[Operation] = (), limit: int = EVENT_LIMIT
    ) -> AbstractContextManager[None]:
        """Serve paths of the vendor's own API, as its SDKs request them, inside the block.

        A head is the version and the segment after the project: ``v2/streams`` stands for ``/v2/<project>/streams``
        and all paths below it. Requests need the engine's own credentials, if it requires any. ``PushRequest.path`` is
        the whole path.
        """
        ...

    def listen(self, app: AsgiApp, host: str, port: int) -> AbstractAsyncContextManager[int]:
        """Open a separate listener; yield its port. Port 0 selects a free one.

        Raises SettingsError if the address is not available.
        """
        ...

    def app(self, handler: PushHandler, *, limit: int = EVENT_LIMIT) -> AsgiApp:
        """Return an application for ``listen``. Errors of ``handler`` become replies as on a mounted path."""
        ...


class Callers(Protocol):
    """Authentication of requests to a plugin.

    ``scope`` is ASGI's. Methods raise Overloaded for an address with too many failed attempts.
    """

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        """Return the caller's project, by a signature with a key of the engine or by a token that it issued.

        Raises Unauthorized, also for every request to an engine without credentials. Raises Unavailable.
        """
        ...

    async def signer(
        self, keys: Mapping[str, bytes], scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes
    ) -> str:
        """Return the access key that the request is signed with (SDK-HMAC-SHA256).

        ``keys`` are secrets by access key. ``headers`` must contain ``authorization``. Raises Unauthorized.
        """
        ...

    def attempt(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[None]:
        """Count the block as an attempt to authenticate, for credentials that the plugin verifies itself.

        Unauthorized, if raised in the block, counts as a failed attempt of the sender's address.
        """
        ...


class PluginContext(Protocol):
    """Objects that a plugin may use. All parts of one plugin in one engine share them."""

    @property
    def settings(self) -> Any:
        """Validated settings: the struct that the plugin declares as ``service``; None if it declares none."""
        ...

    @property
    def service(self) -> Any:
        """Object that the plugin's ``serve`` returned; None if it has no ``serve``."""
        ...

    @property
    def store(self) -> Store: ...

    @property
    def routes(self) -> Routes: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def region(self) -> str: ...

    @property
    def callers(self) -> Callers: ...

    @property
    def audit(self) -> Audit:
        """Audit events of the control plane."""
        ...

    @property
    def logs(self) -> LogFeed:
        """Log lines that functions write."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Return when the clock has reached ``moment``, even if the clock is set meanwhile."""
        ...

    async def sleep_toward(self, moment: float) -> None:
        """Sleep for the time left until ``moment``, at most an hour.

        The clock may be set meanwhile, so the caller must compare again.
        """
        ...


class PluginService(Protocol):
    """Service of a plugin: a listener, an embedded server or a client that all its triggers and destinations share."""

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled. After a failure the engine calls this again on the same object, after a delay."""
        ...


class EventSink(Protocol):
    """Entry for the events of one trigger. Usable as soon as the trigger is stored, even if its source does not run."""

    @property
    def plugin(self) -> PluginContext:
        """Context of the trigger's plugin."""
        ...

    @property
    def trigger_id(self) -> str: ...

    @property
    def kind(self) -> str:
        """Trigger type code."""
        ...

    @property
    def function(self) -> str:
        """URN of the function, with version or alias."""
        ...

    @property
    def project(self) -> str: ...

    @property
    def mode(self) -> Mode:
        """Mode of invocations: ASYNC for ``accept``, SYNC for ``call``."""
        ...

    async def accept(self, event: Event) -> str:
        """Invoke the function asynchronously, for push sources; return the request id once the request is on disk.

        Raises Overloaded and Unavailable, after which the sender should retry. Other errors concern the event itself.
        """
        ...

    async def accept_with(self, event: Event, others: Sequence[tuple[EventSink, Event]]) -> Sequence[str]:
        """Accept this event and events for other triggers of the plugin in one transaction, all or none.

        An event for a disabled function is accepted, and waits until the function is enabled. Returns the request ids
        in the order of the events. A duplicate has the earlier request's id. An event whose key was used with another
        payload has an empty id.
        """
        ...

    async def call(self, event: Event) -> tuple[str, Outcome]:
        """Invoke the function and wait for the outcome; return the request id and the outcome.

        Raises CallTimedOut, and the errors of ``accept``.
        """
        ...


class TriggerContext(EventSink, Protocol):
    """Context of a running source."""

    @property
    def generation(self) -> int:
        """Count of changes of the trigger. Enabling, disabling and new options increase it."""
        ...

    @property
    def since(self) -> float:
        """Start of this generation, in seconds since the epoch by the engine's clock."""
        ...

    @property
    def deleted(self) -> bool:
        """True if ``run`` was cancelled because the trigger was deleted.

        The source should then remove what it created elsewhere.
        """
        ...

    @property
    def cursors(self) -> Mapping[str, bytes]:
        """Cursors of the source, by names of its choice, such as partitions. Only ``accept_batch`` writes them.

        Cursors survive changes of the trigger and are deleted with it. At the start of ``run`` they equal those on
        disk.
        """
        ...

    async def accept_batch(self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None) -> Sequence[str]:
        """Invoke the function once for each event and move the cursors in one transaction, for pull sources.

        Waits while the backlog is full, the function is disabled, or the disk refuses writes. Returns the request ids
        in the order of the events. A duplicate has the earlier request's id. An event that is rejected permanently
        (too large, or its key was used with another payload) has an empty id, and the cursors move past it. Raises
        CursorMoved if the trigger was changed, or if the cursors on disk differ from those of this context.
        """
        ...

    async def enabled(self) -> bool:
        """Return when the function is enabled or deleted. The result is True if that required waiting.

        ``accept_batch`` waits too. This method is for sources that skip what happens while the function is disabled.
        """
        ...

    async def ended(self, request_id: str) -> None:
        """Return when this invocation has ended; at once if the engine has no such invocation (any more)."""
        ...

    def report_problem(self, problem: str) -> None:
        """Show a problem in the trigger's state while the source retries by itself. An empty text clears it."""
        ...

    def report_notice(self, text: str) -> None:
        """Show a notice in the trigger's state, in the field of the problem, while there is no problem.

        A problem hides the notice until the problem is cleared. A later notice replaces an earlier one. A change of the
        trigger removes it.
        """
        ...


class Trigger(Protocol):
    """Source of one trigger. Turns external events into requests."""

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled. Call ``task_status.started()`` when the source accepts events.

        The engine reports any exception and calls this again on a new object, after a delay.
        """
        ...
