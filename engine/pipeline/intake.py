"""Intake: turns requests into invocations, or refuses them.

    check → count (limits, disk) → append, with an idempotency key looked up in the same transaction → queue

An asynchronous request is answered after its row was fsynced. A callback of the journal queues the invocation, so that
a stored invocation is queued even if the caller was cancelled. A synchronous request is queued without being stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import (
    CallTimedOut,
    DiskLow,
    FunctiondError,
    FunctionDisabled,
    FunctionPaused,
    IdempotencyConflict,
    InvalidField,
    ShuttingDown,
    Unavailable,
)
from engine.functions.catalog import Catalog
from engine.functions.function_rules import is_http, priority_cap
from engine.model import Function, Invocation, Mode, Outcome, Request
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import ORDERING_KEY
from engine.model.signal import Signal
from engine.model.trace import HEADER, trace_of
from engine.model.urn import LATEST
from engine.protocols import CursorMove, Cursors, Journal
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

_FUNCTION_AND_SOURCE = attrgetter("function_id", "source")


class IntakeStatistics(Struct, frozen=True, kw_only=True):
    accepted: dict[str, int]  #: by source
    called: int
    refused: dict[str, int]  #: by error class


class InvocationFactory:
    """Maker of new invocations. ``priority_step`` is in seconds, see ``QueueSettings``."""

    def __init__(self, identity: Identity, clock: Clock, priority_step: float) -> None:
        self._identity, self._priority_step = identity, priority_step
        self._now, self._expiry = clock.now, clock.expiry

    def make(self, request: Request, function: Function) -> Invocation:
        """Return a new invocation for a request. The invocation is neither stored nor counted in the backlog."""
        now, identity, headers = self._now(), self._identity, request.headers
        due_at = now + request.delay
        priority = min(request.priority, priority_cap(function)) if request.priority else 0
        key = identity.next_key(now)
        made = Invocation(  # at most 15 arguments: CPython passes more of them by a dictionary, three times slower
            key=key,
            request_id=identity.request_id(key),
            function_id=function.function_id,
            version=function.version,
            alias=request.function.alias or "",
            mode=request.mode,
            source=request.source,
            payload=_payload(request, function),
            priority=priority,
            rank=due_at - priority * self._priority_step,
            first_due_at=due_at,
            due_at=due_at,
            delayed=request.delay > 0,
            hops=request.hops,
            # 0 stands for the memory of ``latest``, with which the queue is configured.
            memory=request.memory or (0 if function.version == LATEST else function.memory_size),
        )
        if trace := request.trace or (trace_of(headers[HEADER]) if headers is not None and HEADER in headers else ""):
            made = replace(made, trace=trace)
        if request.ordering_key:
            made = replace(made, ordering_key=request.ordering_key)
        if request.trigger_id or request.cause:
            parent = identity.request_id(request.cause) if request.cause else ""
            made = replace(made, trigger_id=request.trigger_id, cause=request.cause, parent=parent)
        in_doubt = self._expiry.check() if request.idempotency_key else self._expiry.held
        return replace(made, trusted_at=self._expiry.now()) if in_doubt else made


class Intake:
    """Acceptance of requests.

    ``accepted(invocation, rows)`` announces accepted requests: asynchronous ones that are on disk, or synchronous ones
    that are queued. All ``rows`` of them have the function and source of ``invocation``. ``refused(request, error)``
    announces each refused request, of a batch only the first one. ``closed()`` announces the end of acceptance, when
    the engine begins to stop.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        journal: Journal,
        cursors: Cursors,
        scheduler: Scheduler,
        backlog: Backlog,
        factory: InvocationFactory,
        sync_timeout: float,
    ) -> None:
        self.accepted: Signal[[Invocation, int]] = Signal()
        self.refused: Signal[[Request, Exception]] = Signal()
        self.closed: Signal[[]] = Signal()
        self._catalog, self._journal, self._cursors = catalog, journal, cursors
        self._scheduler, self._backlog = scheduler, backlog
        self._factory, self._sync_timeout = factory, sync_timeout
        self._closed = False
        self._accepted: dict[str, int] = {}
        self._called = 0
        self._refused: dict[str, int] = {}

    def close(self) -> None:
        """Refuse all later requests with ShuttingDown."""
        self._closed = True
        self.closed()

    async def accept(self, request: Request) -> str:
        """Store an asynchronous request and return its request id after the fsync.

        A stored request runs at least once, even after a crash of the engine. Exceptions are requests that are
        cancelled or become too old, and those of deleted functions.

        Raises Overloaded if the backlog is full, Unavailable if the engine stops or the disk is full or fails,
        FunctionDisabled if ``max_instances`` of the function is 0, NotFound if the function does not exist,
        IdempotencyConflict if the key was used with another payload, and InvalidField if the priority is not 0 to 9, or
        the ordering key is none.
        """
        try:
            function = self.route(request)
            invocation = self._factory.make(request, function)
            self._backlog.admit(invocation.function_id, len(invocation.payload), function.name)
            try:
                stored = self._journal.append(invocation, idempotency_key=request.idempotency_key, then=self._queue)
            except BaseException:
                self._backlog.remove(invocation.function_id, len(invocation.payload))
                raise
            return await stored
        except Exception as error:
            self.count_refusal(error, request)
            raise

    async def accept_batch(self, requests: Sequence[Request], move: CursorMove | None = None) -> Sequence[str]:
        """Store all requests and move the cursors of their trigger in one transaction, or do neither.

        Returns one request id for each request: of a duplicate, the earlier id; empty if its idempotency key was used
        with another payload.
        """
        try:
            if self._closed:
                raise ShuttingDown
            made = [(self._factory.make(request, self.route(request)), request.idempotency_key) for request in requests]
            with ExitStack() as undo:
                shares: dict[int, list[int]] = {}
                names: dict[int, str] = {}
                for (invocation, _), request in zip(made, requests, strict=True):
                    shares.setdefault(invocation.function_id, []).append(len(invocation.payload))
                    names.setdefault(invocation.function_id, request.function.name)
                for function_id, sizes in shares.items():
                    rows, size = len(sizes), sum(sizes)
                    self._backlog.admit_batch(function_id, rows, size, names[function_id])
                    undo.callback(self._backlog.remove, function_id, size, rows=rows)
                stored = self._cursors.append(made, move, then=self.queue_each)
                undo.pop_all()
            return await stored
        except Exception as error:
            if requests:
                self.count_refusal(error, requests[0])
            raise

    async def accept_each(self, requests: Sequence[Request]) -> Sequence[str | FunctiondError]:
        """Store each request that can be accepted, all in one transaction. Return its request id or its error for each.

        The requests are for one function. If the backlog has no room for a request, those after it are refused, too.
        Raises Unavailable if none of them can be accepted: the engine stops, or the disk is full or fails.
        """
        if self._closed:
            raise ShuttingDown
        try:
            results = await self._accept_each(requests)
        except Exception as error:
            for request in requests:
                self.count_refusal(error, request)
            raise
        for request, result in zip(requests, results, strict=True):
            if not isinstance(result, str):
                self.count_refusal(result, request)
        return results

    async def accept_promised(self, request: Request, store: Callable[[Invocation], Awaitable[None]]) -> str:
        """Accept a request that was promised by an earlier commit, such as the delivery of an outcome.

        ``store`` writes the invocation. Limits and free disk space are not checked, nor whether the function is
        enabled. Returns the request id. Raises NotFound if the function does not exist, and any error of ``store``.
        """
        invocation = self._factory.make(request, self._catalog.route(request.function))
        # The invocation is counted in the backlog, so that new requests are refused first. If promised ones were
        # refused too, new requests could starve them, and the outbox, which has no limit, would grow.
        self._backlog.add(invocation.function_id, len(invocation.payload))
        try:
            with anyio.CancelScope(shield=True):  # a stored invocation must be queued, even after a timeout
                await store(invocation)
        except BaseException:
            self._backlog.remove(invocation.function_id, len(invocation.payload))
            raise
        self._queue(invocation, stored=True)
        return invocation.request_id

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        """Run a synchronous request to its end. Return the request id, the version that ran, and the outcome.

        Raises CallTimedOut if the time for synchronous calls is over. A run that has begun then continues; a request
        that still waits is removed from the queue. Raises Overloaded if too many synchronous calls wait or run,
        Unavailable if the engine stops, FunctionDisabled if ``max_instances`` of the function is 0, and FunctionPaused
        if the function is paused, or is paused while the request waits.
        """
        try:
            function = self.route(request)
            if (reason := self._scheduler.pause_reason(function.function_id)) is not None:
                raise FunctionPaused(function.name, reason)
            invocation = self._factory.make(request, function)
            self._backlog.admit_sync(invocation.function_id, len(invocation.payload))
            self._called += 1
            self.accepted(invocation, 1)
            reply: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._scheduler.push(invocation, reply)
            try:
                async with asyncio.timeout(self._sync_timeout):
                    # Shielded, so that neither the timeout nor a cancellation of the caller ends the run.
                    return invocation.request_id, function, await asyncio.shield(reply)
            except TimeoutError:
                begun = not self._withdraw(invocation)
                raise CallTimedOut(self._sync_timeout, invocation.request_id, begun=begun) from None
            except asyncio.CancelledError:
                self._withdraw(invocation)
                raise
        except Exception as error:
            self.count_refusal(error, request)
            raise

    def refuse_calls(self, function_id: int) -> None:
        """Refuse the synchronous requests that wait, if the function is paused."""
        reason, latest = self._scheduler.pause_reason(function_id), self._catalog.resolve(function_id, LATEST)
        if reason is None or latest is None:
            return
        for entry in self._scheduler.withdraw_calls(function_id):
            self._backlog.remove_sync(function_id, entry.size)
            if not entry.reply.done():
                entry.reply.set_exception(FunctionPaused(latest.name, reason))

    def refusal(self) -> Unavailable | None:
        """Return the error with which every request is refused now (stop of the engine, low disk space), or None."""
        if self._closed:
            return ShuttingDown()
        try:
            self._backlog.check_disk(0)
        except DiskLow as low:
            return low
        return None

    def statistics(self) -> IntakeStatistics:
        return IntakeStatistics(accepted=dict(self._accepted), called=self._called, refused=dict(self._refused))

    # --- for ``calls`` ----------------------------------------------------------------------------------------

    def route(self, request: Request) -> Function:
        """Return the function of a request. Raises the errors of ``accept`` except those of storing."""
        if self._closed:
            raise ShuttingDown
        function = self._catalog.route(request.function, request.headers)
        if function.max_instances == 0 and not request.accept_when_disabled:
            raise FunctionDisabled(function.name)
        _check_options(request)
        return function

    def queue_each(self, stored: Sequence[Invocation], others: Sequence[Invocation]) -> None:
        """Queue the stored invocations of a batch, and remove the others from the backlog's count."""
        for _, group in groupby(stored, _FUNCTION_AND_SOURCE):
            alike = list(group)
            self._count_accepted(alike[0], len(alike))
        for invocation in stored:
            self._scheduler.push(invocation)
        for invocation in others:
            self._backlog.remove(invocation.function_id, len(invocation.payload))

    def count_refusal(self, error: Exception, request: Request) -> None:
        """Count and announce a refused request."""
        self.refused(request, error)
        kind = type(error).__name__
        self._refused[kind] = self._refused.get(kind, 0) + 1

    # --- inside ---------------------------------------------------------------------------------------------

    def _queue(self, invocation: Invocation, stored: bool) -> None:
        """Queue an invocation that was stored, or remove one that was not from the backlog's count.

        Called by the journal after a write has succeeded or failed.
        """
        if stored:
            self._count_accepted(invocation)
            self._scheduler.push(invocation)
        else:
            self._backlog.remove(invocation.function_id, len(invocation.payload))

    def _count_accepted(self, invocation: Invocation, rows: int = 1) -> None:
        self._accepted[invocation.source] = self._accepted.get(invocation.source, 0) + rows
        self.accepted(invocation, rows)

    async def _accept_each(self, requests: Sequence[Request]) -> Sequence[str | FunctiondError]:
        results: list[str | FunctiondError] = [""] * len(requests)
        places: list[int] = []
        made: list[tuple[Invocation, str]] = []
        function, by_alias = None, requests[0].function.alias is not None  # an alias may choose a version for each
        for place, request in enumerate(requests):
            try:
                if function is None or by_alias:
                    function = self.route(request)
                else:
                    _check_options(request)
            except FunctiondError as error:
                results[place] = error
            else:
                places.append(place)
                made.append((self._factory.make(request, function), request.idempotency_key))
        if not made:
            return results
        sizes = [len(invocation.payload) for invocation, _ in made]
        function_id = made[0][0].function_id
        admitted, full = self._backlog.admit_first(function_id, sizes, requests[0].function.name)
        if full is not None:
            for place in places[admitted:]:
                results[place] = full
            del made[admitted:], places[admitted:]
        try:
            stored = self._cursors.append(made, then=self.queue_each)
        except BaseException:
            self._backlog.remove(function_id, sum(sizes[:admitted]), rows=admitted)
            raise
        for place, request_id in zip(places, await stored, strict=True):
            results[place] = request_id or IdempotencyConflict(requests[place].idempotency_key)
        return results

    def _withdraw(self, invocation: Invocation) -> bool:
        """Remove a waiting synchronous call from queue and count. Return False if its run has begun or ended."""
        waited = self._scheduler.withdraw(invocation.function_id, invocation.key)
        if waited:
            self._backlog.remove_sync(invocation.function_id, len(invocation.payload))
        return waited


def _check_options(request: Request) -> None:
    if not 0 <= request.priority <= 9:
        raise InvalidField("priority", request.priority, "must be 0 to 9")
    if not (key := request.ordering_key):
        return
    if request.mode is Mode.SYNC:
        raise InvalidField("ordering_key", key, "needs an asynchronous invocation")
    if not (len(key) <= ORDERING_KEY and key.isascii() and key.isprintable()):
        raise InvalidField("ordering_key", key, f"must be 1 to {ORDERING_KEY} printable ASCII characters")


def _payload(request: Request, function: Function) -> bytes:
    """Return the payload for ``function``. The version that an alias chooses decides whether it is an HTTP function."""
    if request.http_members is not None and is_http(function):
        return b"%b,%b}" % (request.payload[:-1], request.http_members())
    return request.payload
