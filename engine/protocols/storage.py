"""Protocols of storage: journal, window, records, outbox, cursors, catalog and resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from engine.model.invocation import (
    AsyncSettings,
    DestinationSpec,
    Function,
    Invocation,
    Outcome,
    PendingDelivery,
    Record,
    State,
)


class Settlement(Struct, frozen=True, kw_only=True):
    """End of an attempt, to be stored in one commit: state, outcome, retry, and pending delivery."""

    invocation: Invocation  #: invocation as it was when the attempt began
    state: State  #: WAIT: will be retried
    outcome: Outcome
    retry: Invocation | None = None  #: next attempt, if the state is WAIT
    deliver_to: DestinationSpec | None = None  #: destination of the outcome; None: no delivery
    ran: bool = True  #: False: ended without an attempt (too old, function deleted)


class Recovery(Struct, frozen=True, kw_only=True):
    """Summary of the stored invocations at the start of the engine."""

    backlog: dict[int, tuple[int, int]]  #: function id -> invocations and bytes not ended; 0: ended
    waiting: frozenset[int]  #: functions with ready rows
    poisoned: tuple[Invocation, ...]  #: were running at too many crashes of the engine; the caller ends them as FAIL
    next_due: float | None  #: due time of the earliest delayed row
    revived: int  #: number of invocations put back to WAIT because they were running at a crash


class Discarded(Struct, frozen=True, kw_only=True):
    """Result of one step of discarding."""

    keys: tuple[int, ...]
    size: int  #: payload bytes of these invocations
    reached: tuple[float, int] | None  #: ``after`` for the next step; None: this was the last step


class Page(Struct, frozen=True, kw_only=True):
    """Next ready rows of a function, in order."""

    invocations: tuple[Invocation, ...]
    complete: bool  #: the function has no further ready rows


class Journal(Protocol):
    """Durable record of invocations. The result of a returned future is set after the fsync of the write."""

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[str]:
        """Store an invocation and return its request id.

        If ``idempotency_key`` was used before with the same payload, nothing is stored and the earlier request id is
        returned. ``then(invocation, stored)`` is called in the event loop as soon as the write has succeeded or
        failed, even if the caller was cancelled. Raises IdempotencyConflict, NotStored and OutcomeUnknown.
        """
        ...

    def start(self, invocation: Invocation, started_at: float) -> None:
        """Record that an attempt begins. Returns before the record is on disk."""
        ...

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        """Store the end of an attempt, then call ``then``. After a disk failure, retry until stored."""
        ...

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> Awaitable[tuple[int, int] | None]:
        """End a waiting invocation as FAIL. Return its function id and payload size, or None if it does not wait.

        ``then(key, found, stored)`` is called in the event loop as soon as the write has succeeded or failed, even if
        the caller was cancelled. ``found`` is the returned value, and ``stored`` is False after a failure. Raises
        NotStored and OutcomeUnknown.
        """
        ...

    async def discard(self, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
        """End waiting invocations of a function as DISCARD, in one step over about ``rows`` rows.

        ``after`` is ``BEGINNING`` for the first step, and ``reached`` of the previous step for each further one.
        """
        ...

    async def release(self, invocations: Sequence[Invocation]) -> None:
        """Put these invocations back to WAIT if they are running. Part of an orderly stop; counts as no crash."""
        ...

    async def recover(self) -> Recovery:
        """Put invocations that were running at a crash of the engine back to WAIT, except poisoned ones.

        Call this once, before any other method.
        """
        ...


class Window(Protocol):
    """Access of the scheduler to waiting invocations on disk, one page at a time."""

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        """Return ready invocations of a function in run order, from behind the position ``after`` (rank, key).

        At most ``rows`` of them, with about ``size`` payload bytes."""
        ...

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        """Make up to ``rows`` due delayed rows (about ``size`` payload bytes) ready.

        Return these rows, and the due time of the earliest row that is still delayed.
        """
        ...


class Selection(Struct, frozen=True, kw_only=True):
    """Filter and page of a list of records. Empty fields select all."""

    function_id: int = 0
    functions: frozenset[int] = frozenset()  #: replaces ``function_id``; lists newest first in all states
    version: str = ""
    alias: str = ""
    states: frozenset[State] = frozenset()
    keys: frozenset[int] | None = None
    begin: float = 0.0  #: only records accepted at or after this time, in seconds since the epoch
    end: float = float("inf")  #: only records accepted before this time
    below: int | None = None  #: only records with smaller keys
    within: int = 0  #: search only this many rows of each state; 0: search all rows
    offset: int = 0
    limit: int = 100


class Purged(Struct, frozen=True, kw_only=True):
    """Result of one step of pruning."""

    request_ids: tuple[str, ...]  #: request ids of the dropped invocations
    more: bool  #: another step may drop more now
    over: bool = False  #: rows or bytes still exceed their caps
    next_due: float | None  #: time at which a row or an idempotency key expires next; None: none is known


class Records(Protocol):
    """Records of invocations, for the API and the console.

    The list of one function begins with running invocations, then waiting ones in the order of execution. Ended
    invocations follow, newest first.
    """

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        """Return a page of records without payloads, results and logs, and the number of all matching records."""
        ...

    async def get(self, key: int) -> Record | None:
        """Return the complete record; None if it does not exist."""
        ...

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        """Run one step of pruning. Drop some finished rows that are older than ``age`` seconds.

        If more than ``rows`` finished rows or ``size`` bytes are stored, drop the oldest regardless of their age. Rows
        with a pending delivery always stay.
        """
        ...


class Outbox(Protocol):
    """Store of pending deliveries: outcomes that destinations have not confirmed yet, and given-up deliveries."""

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        """Return due deliveries, about ``rows`` in total and up to ``each`` per destination, and the next due time.

        Every destination with due deliveries is included, regardless of the number of deliveries to others.
        """
        ...

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        """Remove a confirmed delivery. If ``append`` is given, store that invocation in the same transaction."""
        ...

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        """Schedule the next attempt at ``due_at``. None gives up the delivery, which stays stored for redrive.

        A delivery that was redriven since it was read is left as it is.
        """
        ...

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of given-up deliveries of these functions, oldest first, and the number of all of them."""
        ...

    async def pending(
        self, functions: Collection[int], after: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of deliveries with ids above ``after`` that are not given up, and ``after`` for the next page.

        The second value is 0 after the last page. Other pages may have fewer than ``limit`` rows too.
        """
        ...

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        """Return all deliveries of an invocation, including given-up ones."""
        ...

    async def revive(
        self, functions: Collection[int], delivery_ids: Collection[int], now: float
    ) -> Sequence[PendingDelivery]:
        """Make deliveries of these functions due now as if new, even given-up ones. Return these deliveries."""
        ...


class CatalogStore(Protocol):
    """Store of functions and their asynchronous settings, used by the catalog."""

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        """Return all functions, and all settings by function id and version."""
        ...

    async def new_function_id(self) -> int:
        """Return a new id, which no function has had before."""
        ...

    async def put_function(self, function: Function) -> None: ...

    async def put_functions(self, functions: Sequence[Function]) -> None:
        """Store several versions in one transaction."""
        ...

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        """Store a version and its settings in one transaction."""
        ...

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        """Delete a version with its settings and the resources bound to it, in one transaction."""
        ...

    async def delete_function(self, function_id: int) -> None:
        """Delete a function with its versions, settings and resources, in one transaction.

        Waiting invocations are not deleted: see ``Journal.discard``.
        """
        ...

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None: ...

    async def delete_settings(self, function_id: int, version: str) -> None: ...


class CursorMove(Struct, frozen=True, kw_only=True):
    """Move of a trigger's cursors from expected to new positions.

    The move fails unless the stored trigger has this owner and generation, and its cursors are at ``expected``.
    """

    trigger_id: str
    owner: str  #: owner of the stored trigger
    generation: int
    expected: Mapping[str, bytes | None]  #: positions before the move, by cursor name; None: no position
    positions: Mapping[str, bytes]  #: positions after the move, by cursor name


class Cursors(Protocol):
    """Store of the cursors of trigger sources. The deletion of a trigger deletes its cursors."""

    async def read(self, trigger_id: str) -> Mapping[str, bytes]: ...

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[Sequence[str]]:
        """Store invocations and move the cursors in one commit. Return a request id for each request.

        Each request is an invocation with an idempotency key, which may be empty. A duplicate gets the earlier request
        id. A request whose key was used with another payload gets an empty id and is not stored. ``then`` is called as
        by ``Journal.append``, for each request. Raises CursorMoved or NotStored if nothing was stored, and
        OutcomeUnknown if the requests may have been stored.
        """
        ...


class StoredResource(Struct, frozen=True, kw_only=True):
    """Resource of a function or a project, in its stored form."""

    kind: str  #: alias, trigger, event, ...
    owner: str  #: ``function:<function_id>`` or ``project:<project>``
    id: str
    body: bytes  #: the kind's struct as JSON


class ResourceStore(Protocol):
    """Store of aliases, triggers, test events and other resources.

    ``CatalogStore.delete_function`` deletes the resources of the function in the same transaction.
    """

    async def load(self, kind: str) -> Sequence[StoredResource]:
        """Return all resources of a kind, ordered by owner and id."""
        ...

    async def put(self, resource: StoredResource) -> None: ...

    async def delete(self, kind: str, owner: str, id: str) -> None: ...
