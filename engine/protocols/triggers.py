"""Every seam between the engine and the source of a trigger, on one page.

A trigger is a service: it runs from when it is created or enabled until it is changed, disabled or deleted. What it
raises is shown, and it is started again after a while. A *pull* source reads a store of others and hands over what
it read together with how far it read (``accept_batch``); a *push* source answers those who send (``accept``).
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

#: Bytes that one event may have (spec triggers_runtime, 1.0); larger ones are refused for good.
EVENT_LIMIT = 6 << 20

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


#: An ASGI extension of ours: ``scope["extensions"][WHOLE_REPLY]["write"](status, headers, body)`` writes a reply in
#: one piece, for half the cost of two messages. False: it could not, send the messages.
WHOLE_REPLY = "functiond.whole_reply"


class Event(Struct, frozen=True, kw_only=True):
    """What calls the function once."""

    payload: bytes  #: one JSON value
    idempotency_key: str = ""  #: an event with a key that was used within a day is a duplicate, and accepted once
    headers: Mapping[bytes, bytes] | None = None  #: of HTTP, in lower case: the rules of an alias may look at them
    hops: int = 0  #: how many functions led to it, where its source knows


class Store(Protocol):
    """A plugin's own durable tables, for what it serves itself: small rows under text keys, ordered by them."""

    async def get(self, table: str, key: str) -> bytes | None: ...

    async def scan(
        self, table: str, *, after: str = "", until: str = "", limit: int = 1000, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        """Rows with keys above ``after`` and below ``until`` (if given), the lowest first, or the highest."""
        ...

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        """All of it in one transaction, and on disk once this returns. Raises NotStored, OutcomeUnknown.

        What is put may also be refused with DiskLow, as new work is.
        """
        ...

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        """Delete up to ``limit`` rows with keys above ``after`` and below ``until``; gives how many."""
        ...


class PushRequest(Struct, frozen=True, kw_only=True):
    """An HTTP request to a mounted path."""

    method: str
    path: str  #: what is left of the path below the mount: empty, or from its ``/`` on
    query: str
    headers: Mapping[bytes, bytes]  #: names in lower case; of repeated ones the last
    body: bytes
    client: str = ""  #: address of the sender
    project: str = ""  #: of the credentials, where they are asked for


class PushReply(Struct, frozen=True, kw_only=True):
    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


#: Answers a request. FunctiondErrors become replies: Overloaded 429 and Unavailable 503, both with Retry-After.
PushHandler = Callable[[PushRequest], Awaitable[PushReply]]


class Routes(Protocol):
    """HTTP for a plugin: paths of the API's listener, and listeners of its own."""

    def mount(
        self,
        path: str,
        handler: PushHandler,
        *,
        signed: bool = False,
        operations: Sequence[Operation] = (),
        limit: int = EVENT_LIMIT,
    ) -> AbstractContextManager[str]:
        """Answer ``/triggers/<plugin><path>`` and all below it while the block is entered; gives the whole path.

        The longest mounted path wins; of two on the same, the later, until it goes. Whoever sends is for the
        handler to check, unless ``signed``: then requests need the engine's own credentials, if it asks for any.
        ``limit`` is for bytes of a body; ``operations`` tell the API's document what is served there.
        """
        ...

    def claim(
        self, *heads: str, handler: PushHandler, operations: Sequence[Operation] = (), limit: int = EVENT_LIMIT
    ) -> AbstractContextManager[None]:
        """Answer paths of the vendor's own API, where its SDK asks for them, while the block is entered.

        A head is the version and what comes behind the project: ``v2/streams`` is ``/v2/<project>/streams`` and all
        below. Requests need the engine's own credentials, if it asks for any; their ``path`` is the whole one.
        """
        ...

    def listen(self, app: AsgiApp, host: str, port: int) -> AbstractAsyncContextManager[int]:
        """A listener of its own; gives the port, a free one for 0. Raises SettingsError if it cannot be had."""
        ...

    def app(self, handler: PushHandler, *, limit: int = EVENT_LIMIT) -> AsgiApp:
        """What ``listen`` takes, with the errors of ``handler`` answered as on a mounted path."""
        ...


class Callers(Protocol):
    """Who sends a request; ``scope`` is ASGI's. Raises Overloaded for an address that has failed too often."""

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        """The project of who signed this request with a key of the engine's, or shows a token of its.

        Where the engine has no credentials, nobody is known. Raises Unauthorized, Unavailable.
        """
        ...

    async def signer(
        self, keys: Mapping[str, bytes], scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes
    ) -> str:
        """With which of these keys, secrets by access key, the request is signed (SDK-HMAC-SHA256).

        ``authorization`` must be among the headers. Raises Unauthorized.
        """
        ...

    def attempt(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[None]:
        """For a proof that the plugin itself looks at: Unauthorized, raised in the block, counts as a failure."""
        ...


class PluginContext(Protocol):
    """What each part of a plugin may use. The same objects for all parts of one plugin in one engine."""

    @property
    def settings(self) -> Any:
        """Its checked settings, the struct that the plugin names as ``service``; None if it names none."""
        ...

    @property
    def service(self) -> Any:
        """What the plugin's ``serve`` made; None if it has none."""
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
        """Traces of the control plane."""
        ...

    @property
    def logs(self) -> LogFeed:
        """The lines that functions write."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Return once the clock shows ``moment``, however often it is set meanwhile."""
        ...

    async def sleep_toward(self, moment: float) -> None:
        """Sleep for the time left until ``moment``, an hour at most. The clock may be set meanwhile: look again."""
        ...


class PluginService(Protocol):
    """What a plugin runs once for all its triggers and destinations: a listener, an embedded server, a client."""

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        """Until cancelled. Run again after a while if it fails, with the same object."""
        ...


class EventSink(Protocol):
    """Where the events of one trigger come in, from when it is stored: its source need not run yet."""

    @property
    def plugin(self) -> PluginContext:
        """What all parts of its plugin may use."""
        ...

    @property
    def trigger_id(self) -> str: ...

    @property
    def kind(self) -> str:
        """Trigger type code."""
        ...

    @property
    def function(self) -> str:
        """URN with version or alias."""
        ...

    @property
    def project(self) -> str: ...

    @property
    def mode(self) -> Mode:
        """How the function is to be called: with ``accept`` or, in mode SYNC, with ``call``."""
        ...

    async def accept(self, event: Event) -> str:
        """For push sources: invoke the function asynchronously; gives the request id once it is safe.

        Raises Overloaded and Unavailable, for the sender to come again, and what is wrong with the event itself.
        """
        ...

    async def accept_with(self, event: Event, others: Sequence[tuple[EventSink, Event]]) -> Sequence[str]:
        """As ``accept``, together with events for other triggers of the plugin: one transaction, all of it or nothing.

        A function that is switched off keeps nothing from the others: its event waits until it is on again. Gives the
        request ids, in this order: of a duplicate the earlier one, and an empty one for a key that was used with
        another payload.
        """
        ...

    async def call(self, event: Event) -> tuple[str, Outcome]:
        """Invoke it and wait for its end. Raises CallTimedOut, as ``accept`` does otherwise."""
        ...


class TriggerContext(EventSink, Protocol):
    """What a running trigger gets."""

    @property
    def generation(self) -> int:
        """Grows with every change of the trigger: enabled, disabled, or with other options."""
        ...

    @property
    def since(self) -> float:
        """When this generation began, by the clock."""
        ...

    @property
    def deleted(self) -> bool:
        """Once ``run`` is cancelled: whether the trigger is gone, and what it has left elsewhere is to go with it."""
        ...

    @property
    def cursors(self) -> Mapping[str, bytes]:
        """How far the source has come, by a name of its choice (a partition); written by ``accept_batch`` only.

        They outlive changes of the trigger, and go with it. At the start of ``run``, what is on disk.
        """
        ...

    async def accept_batch(self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None) -> Sequence[str]:
        """For pull sources: invoke once for each event and move the cursors, all in one transaction.

        Waits as long as there is no room, or the disk refuses. Gives the request ids: of a duplicate the earlier
        one, and an empty one for what is refused for good (too large, a key used with another payload), which the
        cursors pass. Raises CursorMoved when the trigger has been changed, or the cursors are not what they were.
        """
        ...

    async def enabled(self) -> bool:
        """Return once the function is not switched off; True if that had to be waited for.

        ``accept_batch`` waits as well: this is for sources to whom what happens meanwhile means nothing.
        """
        ...

    async def ended(self, request_id: str) -> None:
        """Return once this invocation has ended; at once if nothing is known of it (any more)."""
        ...

    def report_problem(self, problem: str) -> None:
        """Show what is wrong while the source tries again by itself; empty once it works."""
        ...

    def remark(self, text: str) -> None:
        """Show something that has happened in the place of a problem, until there is one or the trigger is changed.

        A remark is shown again once a problem is over. A later remark replaces an earlier one.
        """
        ...


class Trigger(Protocol):
    """Turns outside events into requests."""

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        """Until cancelled. Call ``task_status.started()`` when events are taken; raise to be started again later."""
        ...
