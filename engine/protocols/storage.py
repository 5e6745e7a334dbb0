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
    """End of an attempt: state of the invocation, outcome, next attempt, and destination. Stored in one commit."""

    invocation: Invocation  #: invocation as it was when the attempt began
    state: State  #: WAIT: will be retried
    outcome: Outcome
    retry: Invocation | None = None  #: next attempt, if the state is WAIT
    deliver_to: DestinationSpec | None = None  #: destination of the outcome; None: no delivery
    ran: bool = True  #: False: ended without an attempt (too old, function deleted)


class Recovery(Struct, frozen=True, kw_only=True):
    """Summary of the stored invocations, made once at the start of the engine."""

    backlog: dict[int, tuple[int, int]]  #: function id -> invocations and bytes not ended; 0: ended
    waiting: frozenset[int]  #: functions with ready rows
    poisoned: tuple[Invocation, ...]  #: were running at too many crashes of the engine; the caller ends them as FAIL
    next_due: float | None  #: due time of the earliest delayed row
    revived: int  #: number of invocations put back to WAIT because they were running at a crash


class Discarded(Struct, frozen=True, kw_only=True):
    """Result of one step of discarding: the invocations ended and the position of the next step."""

    keys: tuple[int, ...]
    size: int  #: payload bytes of these invocations
    reached: tuple[float, int] | None  #: ``after`` for the next step; None: this was the last step


class Page(Struct, frozen=True, kw_only=True):
    """Ready invocations of a function that were read from disk together, in the order of execution."""

    invocations: tuple[Invocation, ...]
    complete: bool  #: the function has no further ready rows


class Journal(Protocol):
    """Durable record of invocations. A returned future gets its result after the fsync of the write."""

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[str]:
        """Store an invocation and return its request id.

        If ``idempotency_key`` was used before with the same payload, nothing is stored and the earlier request id is
        returned. ``then(invocation, stored)`` is called in the event loop as soon as the write has succeeded or failed,
        even if the caller was cancelled.

        Raises IdempotencyConflict if the key was used with another payload, NotStored if the disk failed and nothing
        was stored, and OutcomeUnknown if the invocation may have been stored.
        """
        ...

    def start(self, invocation: Invocation, started_at: float) -> None:
        """Record that an attempt of an invocation begins. Return before the record is on disk."""
        ...

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        """Store the end of an attempt, then call ``then``. After a disk failure, retry until it is stored."""
        ...

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> Awaitable[tuple[int, int] | None]:
        """End a waiting invocation as FAIL. Return its function id and payload size, or None if it does not wait.

        ``then(key, found, stored)`` is called in the event loop as soon as the write has succeeded or failed, even if
        the caller was cancelled. ``found`` is the returned value, and ``stored`` is False after a failure. Raises
        NotStored if the end is certainly not on disk, and OutcomeUnknown if it may be.
        """
        ...

    async def discard(self, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
        """End waiting invocations of a function as DISCARD, in one step that reads about ``rows`` rows.

        ``after`` is the position at which the step begins: ``BEGINNING`` for the first step, then ``reached`` of the
        previous step.
        """
        ...

    async def release(self, invocations: Sequence[Invocation]) -> None:
        """Put these invocations back to WAIT if they are running. Used when the engine stops.

        Unlike after a crash, their crash counts stay unchanged.
        """
        ...

    async def recover(self) -> Recovery:
        """Put invocations that were running at a crash of the engine back to WAIT, and return a summary.

        Invocations that were running at too many crashes are *poisoned*: they are returned for the caller to end as
        FAIL. Call this once, before any other method.
        """
        ...


class Window(Protocol):
    """Access of the scheduler to waiting invocations on disk, one page at a time."""

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        """Return ready invocations of a function in the order of execution, from behind the position ``after``.

        A position is (rank, key). The page has at most ``rows`` invocations with about ``size`` bytes of payload in
        total.
        """
        ...

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        """Make delayed invocations that are due at ``now`` ready.

        At most ``rows`` invocations with about ``size`` bytes of payload in total are made ready. Return them, and the
        due time of the earliest invocation that is still delayed (None: no invocation is).
        """
        ...


class Selection(Struct, frozen=True, kw_only=True):
    """Filter and page for a list of records. An empty field does not filter."""

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
    """Records of accepted invocations, read by the API and the console.

    A list of the records of one function begins with running invocations, then has waiting ones in the order of
    execution. Ended invocations follow, newest first.
    """

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        """Return a page of the records that match, and the number of all matching records.

        Payloads, results and logs are left out.
        """
        ...

    async def get(self, key: int) -> Record | None:
        """Return the complete record of an invocation; None if the invocation does not exist."""
        ...

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        """Run one step of pruning: drop some finished invocations that ended more than ``age`` seconds before ``now``.

        If more than ``rows`` finished invocations or ``size`` bytes are stored, drop the oldest regardless of their
        age. Invocations with a pending delivery always stay.
        """
        ...


class Outbox(Protocol):
    """Store of pending deliveries: outcomes that destinations have not confirmed yet, and given-up deliveries."""

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        """Return due deliveries, and the time at which the next delivery becomes due (None: no later one is scheduled).

        About ``rows`` deliveries are returned in total, and up to ``each`` for each destination. Every destination with
        due deliveries is included, regardless of the number of deliveries to others.
        """
        ...

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        """Remove a confirmed delivery. If ``append`` is given, store that invocation in the same transaction."""
        ...

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        """Schedule the next attempt of a delivery at ``due_at``. None gives up the delivery.

        A given-up delivery stays stored with ``error``, so that it can be redriven. If the delivery was redriven after
        ``pending`` had been read, nothing is changed.
        """
        ...

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of the given-up deliveries of these functions, oldest first, and their total number."""
        ...

    async def pending(
        self, functions: Collection[int], after: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of pending deliveries with ids above ``after``, and the value of ``after`` for the next page.

        Only deliveries of ``functions`` that are not given up are returned. The second value is 0 after the last page.
        A page before the last may have fewer than ``limit`` deliveries too.
        """
        ...

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        """Return all deliveries of an invocation's outcome, including given-up ones."""
        ...

    async def revive(
        self, functions: Collection[int], delivery_ids: Collection[int], now: float
    ) -> Sequence[PendingDelivery]:
        """Make deliveries of these functions due now and restart their age, even of given-up ones. Return them.

        Ids of other functions' deliveries are ignored.
        """
        ...


class CatalogStore(Protocol):
    """Store of functions and their asynchronous settings, used by the catalog of functions."""

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        """Return all versions of all functions, and all asynchronous settings by function id and version."""
        ...

    async def new_function_id(self) -> int:
        """Return a new function id. Ids of deleted functions are not used again."""
        ...

    async def put_function(self, function: Function) -> None: ...

    async def put_functions(self, functions: Sequence[Function]) -> None:
        """Store several versions of functions in one transaction."""
        ...

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        """Store a version and its asynchronous settings in one transaction. None stores no settings."""
        ...

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        """Delete a version, its asynchronous settings, and the resources ``bound`` to it, in one transaction."""
        ...

    async def delete_function(self, function_id: int) -> None:
        """Delete a function with its versions, asynchronous settings and resources, in one transaction.

        Waiting invocations are not deleted; ``Journal.discard`` ends them.
        """
        ...

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None: ...

    async def delete_settings(self, function_id: int, version: str) -> None: ...


class CursorMove(Struct, frozen=True, kw_only=True):
    """Change of a trigger's cursors from expected to new positions.

    The change is refused with CursorMoved if the trigger was deleted, if it has another owner or generation, or if its
    cursors are not at ``expected``.
    """

    trigger_id: str
    owner: str  #: owner of the stored trigger
    generation: int
    expected: Mapping[str, bytes | None]  #: positions before the move, by cursor name; None: no position
    positions: Mapping[str, bytes]  #: positions after the move, by cursor name


class Cursors(Protocol):
    """Store of the cursors of trigger sources. When a trigger is deleted, its cursors are deleted too."""

    async def read(self, trigger_id: str) -> Mapping[str, bytes]: ...

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[Sequence[str]]:
        """Store invocations and move the cursors in one commit. Return a request id for each request.

        Each request is an invocation with an idempotency key, which may be empty. If the key was used with the same
        payload, the request is not stored and gets the earlier request id. If the key was used with another payload,
        the request is not stored and gets an empty id. ``then(invocation, stored)`` is called for each request, as by
        ``Journal.append``.

        Raises CursorMoved if the move is refused, NotStored if the disk failed and nothing was stored, and
        OutcomeUnknown if the requests may have been stored.
        """
        ...


class StoredResource(Struct, frozen=True, kw_only=True):
    """Resource of a function or a project, such as an alias or a trigger, as stored on disk."""

    kind: str  #: alias, trigger, event, ...
    owner: str  #: ``function:<function_id>`` or ``project:<project>``
    id: str
    body: bytes  #: the kind's struct as JSON


class ResourceStore(Protocol):
    """Store of aliases, triggers, test events and other resources.

    ``CatalogStore.delete_function`` also deletes the resources of the function.
    """

    async def load(self, kind: str) -> Sequence[StoredResource]:
        """Return all resources of a kind, such as all triggers, ordered by owner and id."""
        ...

    async def put(self, resource: StoredResource) -> None: ...

    async def delete(self, kind: str, owner: str, id: str) -> None: ...
