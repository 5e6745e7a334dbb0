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
    """The end of an attempt, as it goes to disk: state, history and what is owed are one commit."""

    invocation: Invocation  #: as it was when the attempt began
    state: State  #: WAIT means: try again
    outcome: Outcome
    retry: Invocation | None = None  #: with state WAIT, what waits from now on
    owes: DestinationSpec | None = None  #: to be told of this end
    ran: bool = True  #: False if it ended without an attempt (too old, cancelled while waiting)


class Recovery(Struct, frozen=True, kw_only=True):
    """What a start found on disk."""

    backlog: dict[int, tuple[int, int]]  #: function_id -> rows and payload bytes not yet ended
    waiting: frozenset[int]  #: functions with rows ready to run
    poisoned: tuple[Invocation, ...]  #: ran at too many engine deaths; to be failed
    next_due: float | None  #: earliest delayed row
    revived: int  #: rows that were running when the last engine died


class Discarded(Struct, frozen=True, kw_only=True):
    """What one step of discarding did."""

    keys: tuple[int, ...]
    size: int  #: bytes of their payloads
    reached: tuple[float, int] | None  #: where the next step begins; None: nothing is left


class Page(Struct, frozen=True, kw_only=True):
    """The next ready rows of a function, in order."""

    invocations: tuple[Invocation, ...]
    complete: bool  #: no ready row of the function lies behind these


class Journal(Protocol):
    """The durable truth about invocations. A future done means: fsynced."""

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[str]:
        """Store it; gives its request id once it is safe.

        If ``idempotency_key`` was used before with the same payload, nothing is stored and the earlier request id
        comes back. ``then(invocation, stored)`` is called in the loop as soon as the fate of the
        row is known, whatever became of the caller. Raises IdempotencyConflict, NotStored, OutcomeUnknown.
        """
        ...

    def start(self, invocation: Invocation, started_at: float) -> None:
        """Note that an attempt begins; on disk with one of the next commits."""
        ...

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        """Store the end of an attempt. Kept in memory and tried again until the disk takes it; then ``then``."""
        ...

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> Awaitable[tuple[int, int] | None]:
        """End a waiting invocation as FAIL; gives its function id and payload size, or None if it does not wait.

        ``then(key, found, stored)`` is called in the loop as soon as this is decided, whatever became of the caller;
        ``stored`` is False if the disk did not take it. Raises NotStored, OutcomeUnknown.
        """
        ...

    async def discard(self, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
        """End waiting invocations of a function as DISCARD, looking at about ``rows`` of them. Begins at BEGINNING."""
        ...

    async def release(self, invocations: Sequence[Invocation]) -> None:
        """Put running rows back to WAIT, as an orderly stop does."""
        ...

    async def recover(self) -> Recovery:
        """Make the rows of a dead engine wait again. Once, at start, before anything else is called."""
        ...


class Window(Protocol):
    """The view that the scheduler has of an unbounded backlog."""

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        """Up to ``rows`` ready rows (and about ``size`` payload bytes) behind ``after``, by rank and key."""
        ...

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        """Make up to ``rows`` due delayed rows (about ``size`` bytes) ready; gives them and the next due time."""
        ...


class Selection(Struct, frozen=True, kw_only=True):
    """Which records a list asks for. Times are of acceptance, in seconds; what is empty means all."""

    function_id: int = 0
    functions: frozenset[int] = frozenset()  #: of any of these instead, whatever their state the newest first
    version: str = ""
    alias: str = ""
    states: frozenset[State] = frozenset()
    keys: frozenset[int] | None = None
    begin: float = 0.0
    end: float = float("inf")
    below: int | None = None  #: only keys under this one
    within: int = 0  #: rows of each part that are looked at, and counted, at most; 0: all
    offset: int = 0
    limit: int = 100


class Purged(Struct, frozen=True, kw_only=True):
    """What one step of purging did."""

    request_ids: tuple[str, ...]
    more: bool  #: another step may find more at once
    over: bool = False  #: more is kept than the caps allow
    next_due: float | None  #: when the oldest finished row left will be too old


class Records(Protocol):
    """Invocations as people look at them, waiting ones in the order they will run, then ended ones, newest first."""

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        """A page without payloads, results and logs, and the count of all that match."""
        ...

    async def get(self, key: int) -> Record | None:
        """The whole record."""
        ...

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        """One step: drop some finished rows older than ``age`` seconds, or beyond the caps of rows and bytes."""
        ...


class Outbox(Protocol):
    """Outcomes that destinations have not confirmed yet."""

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        """Due ones, about ``rows`` at most and ``each`` of one destination; and when the next will be due.

        However many one destination is owed, there is something of every other.
        """
        ...

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        """Forget it; with ``append``, in one transaction with the invocation it became."""
        ...

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        """Try again at ``due_at``; None gives up, and keeps the row to be seen."""
        ...

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Those of these functions, the oldest first, and the count of all."""
        ...

    async def pending(
        self, functions: Collection[int], after: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of rows that are neither delivered nor given up, by id, above ``after``; and the id to go on
        after, which is 0 at the end. A page with fewer than ``limit`` rows is not always the last."""
        ...

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        """All that an invocation owes, given up or not."""
        ...

    async def revive(
        self, functions: Collection[int], delivery_ids: Collection[int], now: float
    ) -> Sequence[PendingDelivery]:
        """Make them due now, given up or not, as if they were new; gives those that are of these functions."""
        ...


class CatalogStore(Protocol):
    """Functions and their asynchronous settings, as the catalog keeps them."""

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        """All of them; settings are by function id and version."""
        ...

    async def new_function_id(self) -> int:
        """Never given before."""
        ...

    async def put_function(self, function: Function) -> None: ...

    async def put_functions(self, functions: Sequence[Function]) -> None:
        """Several versions, in one transaction."""
        ...

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        """A version and its settings, in one transaction."""
        ...

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        """With its settings and what is bound to it, in one transaction."""
        ...

    async def delete_function(self, function_id: int) -> None:
        """With all its settings. Waiting invocations stay: see ``Journal.discard``."""
        ...

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None: ...

    async def delete_settings(self, function_id: int, version: str) -> None: ...


class CursorMove(Struct, frozen=True, kw_only=True):
    """A step of a trigger's source; only the stored trigger of this generation may make it."""

    trigger_id: str
    owner: str  #: of the stored trigger
    generation: int
    expected: Mapping[str, bytes | None]  #: what must be there, by name; None for nothing
    positions: Mapping[str, bytes]  #: what will be there


class Cursors(Protocol):
    """How far the sources of triggers have come. They go with their trigger."""

    async def read(self, trigger_id: str) -> Mapping[str, bytes]: ...

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> Awaitable[Sequence[str]]:
        """Store invocations, each with its idempotency key or an empty one, and move the cursors: all in one commit.

        Gives the request ids: of a duplicate the earlier one, of a key used with another payload an empty one.
        ``then`` is as in ``Journal.append``. Raises CursorMoved, NotStored, OutcomeUnknown; then nothing is stored
        (or may be, for the last).
        """
        ...


class StoredResource(Struct, frozen=True, kw_only=True):
    """What belongs to a function or a project, in the form in which it is kept."""

    kind: str  #: alias, trigger, event, ...
    owner: str  #: ``function:<function_id>`` or ``project:<project>``
    id: str
    body: bytes  #: the kind's struct as JSON


class ResourceStore(Protocol):
    """Aliases, triggers, test events and the like. Deleting a function deletes what it owns, in one transaction."""

    async def load(self, kind: str) -> Sequence[StoredResource]:
        """All of a kind, by owner and id."""
        ...

    async def put(self, resource: StoredResource) -> None: ...

    async def delete(self, kind: str, owner: str, id: str) -> None: ...
