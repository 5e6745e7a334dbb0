"""Storage: the journal, its views, the outbox, cursors, the catalog and resources."""

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
    """Stored end of an attempt: state, history and pending delivery, in one commit."""

    invocation: Invocation  #: state when the attempt began
    state: State  #: WAIT: will be retried
    outcome: Outcome
    retry: Invocation | None = None  #: next attempt, if the state is WAIT
    deliver_to: DestinationSpec | None = None  #: destination of the outcome
    ran: bool = True  #: False: ended without an attempt (too old, cancelled while waiting)


class Recovery(Struct, frozen=True, kw_only=True):
    """Findings on disk at the start of the engine."""

    backlog: dict[int, tuple[int, int]]  #: function_id -> rows and payload bytes not yet ended
    waiting: frozenset[int]  #: functions with ready rows
    poisoned: tuple[Invocation, ...]  #: running at too many crashes of the engine; to be ended as FAIL
    next_due: float | None  #: due time of the earliest delayed row
    revived: int  #: rows that were running when the last engine exited without a stop


class Discarded(Struct, frozen=True, kw_only=True):
    """Result of one step of discarding."""

    keys: tuple[int, ...]
    size: int  #: payload bytes of these keys
    reached: tuple[float, int] | None  #: start of the next step; None: no rows left


class Page(Struct, frozen=True, kw_only=True):
    """Next ready rows of a function, in order."""

    invocations: tuple[Invocation, ...]
    complete: bool  #: no further ready rows of the function


class Journal(Protocol):
    """Durable record of invocations. A result of a future means that the write was fsynced."""

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[str]:
        """Store an invocation. The future's result is its request id, set after the fsync.

        If ``idempotency_key`` was used before with the same payload, nothing is stored and the result is the earlier
        request id. ``then(invocation, stored)`` is called in the event loop as soon as the write has succeeded or
        failed, even if the caller was cancelled. Raises IdempotencyConflict, NotStored, OutcomeUnknown.
        """
        ...

    def start(self, invocation: Invocation, started_at: float) -> None:
        """Record that an attempt begins. Stored with one of the next commits."""
        ...

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        """Store the end of an attempt, then call ``then``. Kept in memory and retried until stored."""
        ...

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> Awaitable[tuple[int, int] | None]:
        """End a waiting invocation as FAIL.

        The result is its function id and payload size, or None if it does not wait. ``then(key, found, stored)`` is
        called in the event loop as soon as the write has succeeded or failed, even if the caller was cancelled;
        ``stored`` is False after a failure. Raises NotStored, OutcomeUnknown.
        """
        ...

    async def discard(self, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
        """End waiting invocations of a function as DISCARD, in one step over about ``rows`` rows.

        The first step starts after ``BEGINNING``, each further one after ``reached`` of the step before.
        """
        ...

    async def release(self, invocations: Sequence[Invocation]) -> None:
        """Put running rows back to WAIT, as part of an orderly stop."""
        ...

    async def recover(self) -> Recovery:
        """Put rows that were running when the last engine exited back to WAIT. Call once, before anything else."""
        ...


class Window(Protocol):
    """Scheduler's view of an unbounded backlog."""

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        """Return up to ``rows`` ready rows (and about ``size`` payload bytes) after ``after``, by rank and key."""
        ...

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        """Make up to ``rows`` due delayed rows (about ``size`` bytes) ready. Return them and the next due time."""
        ...


class Selection(Struct, frozen=True, kw_only=True):
    """Filter and page of a list of records. Empty fields select all."""

    function_id: int = 0
    functions: frozenset[int] = frozenset()  #: used instead of function_id; lists newest first, regardless of state
    version: str = ""
    alias: str = ""
    states: frozenset[State] = frozenset()
    keys: frozenset[int] | None = None
    begin: float = 0.0  #: earliest time of acceptance, seconds since the epoch
    end: float = float("inf")  #: time before which records were accepted
    below: int | None = None  #: only keys below this one
    within: int = 0  #: rows of each part that are scanned, and counted, at most; 0: all
    offset: int = 0
    limit: int = 100


class Purged(Struct, frozen=True, kw_only=True):
    """Result of one step of pruning."""

    request_ids: tuple[str, ...]  #: invocations dropped
    more: bool  #: another step may drop more at once
    over: bool = False  #: rows or bytes still exceed the caps
    next_due: float | None  #: time at which the oldest finished row left will be too old


class Records(Protocol):
    """Records of invocations, for the API and the console.

    Lists of a function begin with running and waiting invocations in the order of execution. Ended ones follow, newest
    first.
    """

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        """Return a page of records without payloads, results and logs, and the count of all that match."""
        ...

    async def get(self, key: int) -> Record | None:
        """Return the complete record; None if it does not exist."""
        ...

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        """Run one step of pruning: drop some finished rows older than ``age`` seconds or above the caps.

        The caps are ``rows`` and ``size`` in bytes. Rows with a pending delivery stay.
        """
        ...


class Outbox(Protocol):
    """Pending deliveries: outcomes that destinations have not confirmed yet."""

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        """Return due deliveries, about ``rows`` at most and ``each`` per destination, and the next due time.

        Every destination with due deliveries is included, however many are pending for others.
        """
        ...

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        """Remove a delivery. With ``append``, also store the invocation that it became, in the same transaction."""
        ...

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        """Schedule the next try at ``due_at``. None gives up and keeps the row for inspection and redrive."""
        ...

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of given-up deliveries of these functions, oldest first, and the count of all."""
        ...

    async def pending(
        self, functions: Collection[int], after: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of deliveries with ids above ``after`` that are not given up, and ``after`` of the next page.

        The latter is 0 at the end. A page with fewer than ``limit`` rows is not always the last.
        """
        ...

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        """Return all deliveries of an invocation, given up or not."""
        ...

    async def revive(
        self, functions: Collection[int], delivery_ids: Collection[int], now: float
    ) -> Sequence[PendingDelivery]:
        """Make deliveries due now, given up or not, as if they were new. Return those of these functions."""
        ...


class CatalogStore(Protocol):
    """Store of functions and their asynchronous settings, used by the catalog."""

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        """Return all functions, and all settings by function id and version."""
        ...

    async def new_function_id(self) -> int:
        """Return an id that was never used before."""
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
        """Delete a function with its versions, settings and resources.

        Waiting invocations stay: see ``Journal.discard``.
        """
        ...

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None: ...

    async def delete_settings(self, function_id: int, version: str) -> None: ...


class CursorMove(Struct, frozen=True, kw_only=True):
    """Move of a trigger's cursors. Fails unless the stored trigger has this owner and generation."""

    trigger_id: str
    owner: str  #: owner of the stored trigger
    generation: int
    expected: Mapping[str, bytes | None]  #: positions before the move, by cursor name; None: no position
    positions: Mapping[str, bytes]  #: positions after the move, by cursor name


class Cursors(Protocol):
    """Cursors of trigger sources. They are deleted with their trigger."""

    async def read(self, trigger_id: str) -> Mapping[str, bytes]: ...

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[Sequence[str]]:
        """Store invocations, each with its idempotency key or an empty one, and move the cursors: all in one commit.

        The result is a list of request ids. A duplicate gets the earlier id; a key that was used with another payload
        gets an empty one. ``then`` is called as by ``Journal.append``. Raises CursorMoved and NotStored, if nothing was
        stored, and OutcomeUnknown, if it may have been stored.
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
