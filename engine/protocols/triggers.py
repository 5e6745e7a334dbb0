"""Protocols between the engine and plugins: sources of triggers, plugin services, and the objects that both may use.

A trigger's source starts when the trigger is created or enabled. It runs until the trigger is changed, disabled or
deleted. After an exception of a source, the API shows the error in the trigger's state, and the source is restarted
after a delay.

- A *pull* source reads an external store. It passes events to ``accept_batch``, with the cursors after these events.
- A *push* source receives events from clients and passes each to ``accept``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from anyio.abc import TaskStatus
from msgspec import Struct

from engine.asgi.wire import App, Headers, ReadBody, Reply, Scope
from engine.logs.feed import LogBoard
from engine.model.clock import Clock
from engine.model.invocation import Mode, Outcome
from engine.model.quotas import Quotas
from engine.protocols.audit import Audit
from engine.protocols.operation import Operation

#: Bytes of one event (6 MiB, FunctionGraph's limit); larger events are rejected permanently.
EVENT_LIMIT = 6 << 20


class Event(Struct, frozen=True, kw_only=True):
    """Event of a trigger. Each event starts one invocation of the trigger's function."""

    payload: bytes  #: one JSON value
    idempotency_key: str = ""  #: an event whose key was used before (by default, within a day) starts no invocation
    ordering_key: str = ""  #: events of the function with this key run one at a time, in order; at most 200 characters
    headers: Headers | None = None  #: of the HTTP request; rules of an alias may match them
    hops: int = 0  #: number of functions that caused this event, if the source can count them
    #: value of the header ``traceparent`` that came with the event; empty: that of ``headers``, if it has one
    traceparent: bytes = b""
    #: returns further members for ``payload``, a JSON object, without braces (``"a":1,"b":2``); called only if the
    #: function is an HTTP function
    http_members: Callable[[], bytes] | None = None


class Store(Protocol):
    """Durable tables of one plugin. The rows of a table are small and sorted by a text key."""

    async def get(self, table: str, key: str) -> bytes | None: ...

    async def scan(
        self,
        table: str,
        *,
        after: str = "",
        until: str = "",
        limit: int = 1000,
        newest: bool = False,
    ) -> Sequence[tuple[str, bytes]]:
        """Return up to ``limit`` rows of a table with keys above ``after`` and, if given, below ``until``.

        Rows are in ascending order of keys, or in descending order if ``newest``.
        """
        ...

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        """Put and delete rows of a table in one transaction. Return when the transaction is on disk.

        Raises NotStored if the disk failed and nothing was changed, OutcomeUnknown if the change may be on disk, and
        DiskLow if there are rows to put and free disk space is low.
        """
        ...

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        """Delete up to ``limit`` rows of a table with keys above ``after`` and below ``until``. Return their number."""
        ...


class PushRequest(Struct, frozen=True, kw_only=True):
    """HTTP request that is passed to a handler of a plugin."""

    method: str
    path: str  #: path below the mounted one (empty, or starts with ``/``); otherwise the whole path
    query: str
    headers: Headers
    body: bytes
    client: str = ""  #: address of the sender
    project: str = ""  #: project of the request's credentials; empty if none are required


#: Returns the reply. A FunctiondError becomes an error reply: Overloaded 429, Unavailable 503, both with Retry-After.
PushHandler = Callable[[PushRequest], Awaitable[Reply]]
#: Raises an error if a batch of events must not be stored.
Check = Callable[[], Awaitable[object]]


class Routes(Protocol):
    """HTTP routes of one plugin: paths on the engine's API listener, and separate listeners."""

    def mount(
        self,
        path: str,
        handler: PushHandler,
        *,
        signed: bool = False,
        operations: Sequence[Operation] = (),
        limit: int = EVENT_LIMIT,
    ) -> AbstractContextManager[str]:
        """Serve ``/triggers/<plugin><path>`` and all paths below it until the block ends. Yield the whole path.

        A request is served by the longest mounted path that matches, and of equal paths, by the one mounted last. The
        handler must authenticate senders itself. If ``signed``, the engine authenticates requests instead, provided
        that its settings require credentials, and checks that the role of the credentials may use the operation. A
        request that is not among ``operations`` needs the role admin; from other roles, the engine answers it with 405
        if its path has operations of other methods, else with 403. ``operations`` are added to the API's OpenAPI
        document. ``limit`` is the maximum size of a body in bytes.
        """
        ...

    def claim(
        self, *heads: str, handler: PushHandler, operations: Sequence[Operation] = (), limit: int = EVENT_LIMIT
    ) -> AbstractContextManager[None]:
        """Serve paths of the vendor's API, as the vendor's SDKs request them, until the block ends.

        Each of ``heads`` is an API version and the path segment after the project: ``v2/streams`` stands for
        ``/v2/<project>/streams`` and all paths below it. The engine authenticates requests if its settings require
        credentials. ``PushRequest.path`` is the whole path. ``limit`` and ``operations`` are as for ``mount``.
        """
        ...

    def listen(self, app: App, host: str, port: int) -> AbstractAsyncContextManager[int]:
        """Serve ``app`` on a separate listener until the block ends. Yield the port of the listener.

        The listener speaks TLS if the engine's settings have a certificate. ``port`` 0 selects a free port. Raises
        SettingsError if the listener cannot use the address.
        """
        ...

    def app(self, handler: PushHandler, *, limit: int = EVENT_LIMIT) -> App:
        """Return an application for ``listen`` that passes each request to ``handler``.

        An exception of ``handler`` becomes the same error reply as on a path of ``mount``. ``limit`` is the maximum
        size of a body in bytes.
        """
        ...


class Callers(Protocol):
    """Authentication of HTTP requests to a plugin.

    ``scope`` is the ASGI scope of the request. Valid credentials always pass. After many failed attempts of a sender's
    address, Unauthorized has a delay for its reply (``delay_of``, ``hold_back``); if too many replies are delayed
    already, Overloaded is raised in its place.

    ``read`` reads the whole body of the request, and may be called again later. It is called only if a signature covers
    the body, and after the check of a signature whose headers declare the hash of the body. Its errors pass.
    """

    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str:
        """Return the project of the caller, who signed the request with a key of the engine or sent its token.

        For requests that call a function. Raises Forbidden if the role of the credentials may not invoke; Unauthorized
        if the credentials are missing or wrong, or if the engine has no credentials to check them with; and Unavailable
        while the engine starts.
        """
        ...

    async def signer(self, keys: Mapping[str, bytes], scope: Scope, headers: Headers, read: ReadBody) -> str:
        """Return the access key with which the request is signed (SDK-HMAC-SHA256).

        ``keys`` are secrets by access key. ``headers`` must contain ``authorization``. Raises Unauthorized if the
        signature is wrong or the access key is not in ``keys``.
        """
        ...

    def attempt(self, scope: Scope) -> AbstractContextManager[None]:
        """Count failed attempts of the sender's address, for a block in which the plugin verifies credentials itself.

        Unauthorized raised in the block counts as a failed attempt, and gets the delay of its reply.
        """
        ...


class PluginContext(Protocol):
    """Objects of the engine that a plugin may use. All triggers and destinations of a plugin share one context."""

    @property
    def settings(self) -> Any:
        """Validated settings of the plugin, of the type ``Plugin.service``; None if the plugin has no settings."""

    @property
    def service(self) -> Any:
        """Running service that ``Plugin.serve`` returned; None if the plugin has no ``serve``."""

    @property
    def store(self) -> Store: ...

    @property
    def routes(self) -> Routes: ...

    @property
    def clock(self) -> Clock:
        """Clock of the engine. Compare the age of stored data with ``clock.expiry.now()``, not with ``clock.now()``."""

    @property
    def region(self) -> str: ...

    @property
    def callers(self) -> Callers: ...

    @property
    def audit(self) -> Audit:
        """Source of audit events: calls of the API that manages functions."""

    @property
    def logs(self) -> LogBoard:
        """Source of the log lines that functions write."""

    @property
    def limits(self) -> Quotas: ...

    def may_use(self, project: str, projects: Collection[str]) -> bool:
        """Return whether ``projects`` has a project or ``*``, or is empty while credentials do not name several."""

    def limited_egress(self) -> AbstractContextManager[None]:
        """Let TCP connections of a block reach public addresses and ``egress.allow`` only. Raises PermissionError."""

    async def sleep_until(self, moment: float) -> None:
        """Wait until the engine's clock reaches ``moment`` (seconds since the epoch), even if the clock is set."""

    async def sleep_toward(self, moment: float) -> None:
        """Sleep until the clock reaches ``moment``, or is set, noticed within 30 s. The caller must compare them."""

    async def create_trigger(self, kind: str, project: str, function: str, data: Mapping[str, Any]) -> str:
        """Create a trigger of a project's function (URN) and return its id. Raises the errors of the API."""

    async def delete_trigger(self, project: str, trigger_id: str) -> None: ...


class PluginService(Protocol):
    """Service of a plugin, such as a listener or a client, that the plugin's triggers and destinations share."""

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        """Run the service until cancelled. Call ``task_status.started()`` when the service can be used.

        After an exception, the engine waits and calls this method of the same object again.
        """
        ...


class EventSink(Protocol):
    """Entry for the events of one trigger. Usable as long as the trigger exists, even if its source does not run."""

    @property
    def plugin(self) -> PluginContext:
        """Context of the trigger's plugin, shared by all triggers and destinations of the plugin."""
        ...

    @property
    def trigger_id(self) -> str: ...

    @property
    def kind(self) -> str:
        """Kind of the trigger: its trigger type code, such as ``OBS``."""
        ...

    @property
    def function(self) -> str:
        """URN of the trigger's function, with version or alias."""
        ...

    @property
    def project(self) -> str: ...

    @property
    def mode(self) -> Mode:
        """Invocation mode of the trigger: ASYNC if the source must use ``accept``, SYNC if it must use ``call``."""
        ...

    async def accept(self, event: Event) -> str:
        """Invoke the function asynchronously. Return the request id when the request is on disk. For push sources.

        After Overloaded, Unavailable and FunctionDisabled, the sender of the event should retry later. Other errors
        concern the event itself or a missing function.
        """
        ...

    async def accept_with(self, event: Event, others: Sequence[tuple[EventSink, Event]]) -> Sequence[str]:
        """Accept this event and events for other triggers of the plugin, in one transaction. Return the request ids.

        If the transaction fails, no event is accepted. An event for a disabled function waits until it is enabled. An
        event whose idempotency key was used with the same payload gets the earlier request id, and with another payload
        an empty id. IdempotencyConflict is raised if a ContentKey was used with other content.
        """
        ...

    async def call(self, event: Event) -> tuple[str, Outcome]:
        """Invoke the function synchronously. Return the request id and the outcome.

        Raises CallTimedOut if the time for synchronous calls is over, and the errors of ``accept``.
        """
        ...


class TriggerContext(EventSink, Protocol):
    """Context of a running source: the entry for its events, its cursors, and its state in the API."""

    @property
    def generation(self) -> int:
        """Number of changes of the trigger: 1 after its creation. Enabling, disabling and new options increase it."""

    @property
    def enabled_generation(self) -> int:
        """Generation since which the trigger is active."""

    @property
    def claimed(self) -> float:
        """Time since which the trigger has its values of ``TriggerRules.claimed``, in seconds since the epoch."""

    @property
    def since(self) -> float:
        """Time of the trigger's last change, in seconds since the epoch by the engine's clock."""

    @property
    def deleted(self) -> bool:
        """True if ``Trigger.run`` was cancelled because the trigger was deleted.

        The source should then remove the objects that it created in other systems.
        """

    @property
    def cursors(self) -> Mapping[str, bytes]:
        """Cursors of the source by name. The source chooses the names, such as names of partitions.

        Only ``accept_batch`` changes cursors. Changes of the trigger do not affect the cursors; its deletion deletes
        them. When ``Trigger.run`` is called, the cursors equal those on disk.
        """

    async def accept_batch(
        self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None, *, check: Check | None = None
    ) -> Sequence[str]:
        """Invoke the function once for each event and move the cursors, in one transaction. For pull sources.

        Waits while the backlog is full, the function is disabled, or the disk refuses writes. ``check`` is awaited
        after each wait. It raises to give the batch up, for instance since what the source reads was made anew.

        Returns the request ids in the order of the events. An event whose idempotency key was used with the same
        payload gets the earlier request id. An event that is rejected permanently (too large, or its key was used with
        another payload) gets an empty id, and the cursors move past it. Raises CursorMoved if the trigger was changed,
        or if the cursors on disk differ from those of this context.
        """

    async def enabled(self) -> bool:
        """Wait until the function is enabled or deleted. Return True if the function was disabled at the call.

        ``accept_batch`` also waits for the function. This method is for sources that skip events while the function is
        disabled.
        """

    async def ended(self, request_id: str) -> None:
        """Wait until the invocation with this request id has ended. Return at once if no such invocation is stored."""

    def report_problem(self, problem: str) -> None:
        """Set the problem that the trigger's state shows. Empty: it is over, and is shown for another minute."""

    def report_lost(self, text: str, events: int) -> None:
        """Report events that left what the source reads before they were read.

        The loss is logged, an equal text once a minute, and shown in the trigger's state for a minute or until the
        trigger is changed. ``events`` is added to the trigger's number of lost events; 0: unknown.
        """

    def report_refused(self, text: str) -> None:
        """Count a pushed event that the source refuses, and show it for a minute. One a minute is logged."""

    def report_notice(self, text: str) -> None:
        """Set a notice that the trigger's state shows while there is no problem, until the next one or a change."""

    def report_lag(self, lag: Mapping[str, int]) -> None:
        """Replace the numbers of unread events by cursor name, which API and metrics show. Empty: unknown."""


class Rest(Struct, frozen=True, kw_only=True):
    """Rest of a source that has nothing to do until a moment, or until the clock is set. It has no task meanwhile."""

    until: float  #: seconds since the epoch
    resume: Callable[[], Awaitable[Rest | None]]  #: goes on like ``Trigger.run``


class Trigger(Protocol):
    """Source of one trigger. Turns events from outside into requests."""

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> Rest | None:
        """Run the source until cancelled or until a rest. Call ``task_status.started()`` when it accepts events.

        After an exception, the engine shows it in the trigger's state, waits, and runs a new ``Trigger`` object.
        """
        ...
