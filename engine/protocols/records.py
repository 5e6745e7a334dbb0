"""Records of invocations, as the API and the console read them, and their pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from engine.model.invocation import Record, State

#: Place in a scan of waiting invocations: number of a part, and the sort value and key of the last row read.
Place = tuple[int, float, int]
FIRST: Place = (0, -math.inf, 0)  #: begin of a scan
NEWEST = 4  #: number of the part of a list that is sorted newest first: all of several functions, or all that ended
LAST_KEY = (1 << 63) - 1  #: no key is larger


class Selection(Struct, frozen=True, kw_only=True):
    """Filter and page for a list of records. An empty field does not filter."""

    function_id: int = 0
    functions: frozenset[int] = frozenset()  #: replaces ``function_id``; lists newest first in all states
    version: str = ""
    alias: str = ""
    source: str = ""
    trigger_id: str = ""
    parent: int = 0  #: key of the invocation that queued them
    codes: frozenset[int] = frozenset()
    without: frozenset[int] = frozenset()  #: codes of records that are left out
    text: str = ""  #: part of the error message; ASCII letters match in both cases
    states: frozenset[State] = frozenset()
    keys: frozenset[int] | None = None
    begin: float = 0.0  #: only records accepted at or after this time, in seconds since the epoch
    end: float = float("inf")  #: only records accepted before this time
    below: int | None = None  #: only records with smaller keys
    since: int = 0  #: only records with this key or a larger one
    offset: int = 0
    counted: bool = True  #: False: the number of all matching records is not needed; requires ``offset`` 0
    limit: int = 100


class Scan(Struct, frozen=True, kw_only=True):
    """Result of one step of a scan of waiting invocations."""

    keys: tuple[int, ...]  #: may be fewer than asked for, or none, before the end of the scan
    reached: Place | None  #: ``after`` for the next step; None: this was the last step


class Found(Struct, frozen=True, kw_only=True):
    """Result of one step of a search: the records that match, in the order of the list."""

    records: tuple[Record, ...]  #: may be fewer than asked for, or none, although more follow
    read: int  #: rows that were read, whether they match or not
    first: Place | None = None  #: place of the first row that was read, in the order of the list; None: none was
    last: Place | None = None  #: place of the last one
    more: bool = False  #: rows are left in the direction of the search


class Count(Struct, frozen=True, kw_only=True):
    """Number of the records that match."""

    rows: int
    more: bool = False  #: True: there are, or may be, more


class Standing(Struct, frozen=True, kw_only=True):
    """Place of an invocation that has not ended."""

    ahead: int | None = None  #: ready invocations of its function that come before it; None: it is not ready
    begun: bool = False  #: its handler has begun
    predecessor: int | None = None  #: key of the invocation right before it of its ordering key; None: it is not held


class Queued(Struct, frozen=True, kw_only=True):
    """Waiting invocations of one function. Counts end at a limit."""

    ready: int = 0
    held: int = 0
    first: int | None = None  #: key of the ready one that starts first; None: none is ready
    first_due: float = 0.0  #: its due time
    next_due: float | None = None  #: due time of its first delayed one; None: it is not among the next ones of all


class Purged(Struct, frozen=True, kw_only=True):
    """Result of one step of pruning."""

    request_ids: tuple[str, ...]  #: request ids of the dropped invocations
    functions: tuple[int, ...] = ()  #: their functions, in the same order
    more: bool  #: another step may drop more now
    over: bool = False  #: rows or bytes still exceed their caps
    next_due: float | None  #: time at which a row or an idempotency key expires next; None: none is known
    attempts: dict[str, int] = {}  #: number of the last attempt, by request id, of dropped invocations that had several


class Records(Protocol):
    """Records of accepted invocations, read by the API and the console.

    A list is one consistent state of the storage: each invocation is in it at most once, also while its state changes.
    A list of the records of one function begins with running invocations, then has waiting ones in the order of
    execution. Ended invocations follow, newest first.
    """

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        """Return a page of the records that match, and the number of all matching records.

        Payloads, results and logs are left out.
        """
        ...

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        """Return up to ``limit`` records that match, from behind the place ``start``; None: from the begin of the list.

        The order is that of ``list``, and payloads, results and logs are left out, too. With ``back``, the search goes
        from ``start`` towards the begin of the list. A step reads rows for a limited time, a twentieth of a second, so
        that it may end before it has found enough. ``offset`` and ``limit`` of the selection do not count.
        Steps are no consistent state together: a record that moves meanwhile may be left out, or be found twice.
        """
        ...

    async def count(self, selection: Selection, most: int) -> Count:
        """Return the number of records that match, at most ``most``. As a step of ``search``, it takes limited time."""
        ...

    async def get(self, key: int) -> Record | None:
        """Return the complete record of an invocation; None if the invocation does not exist."""
        ...

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        """Return up to ``most`` running and ``most`` ended invocations of a function, the newest, in one read.

        They are as in lists, beside their logs. Logs whose bytes have changed are left out.
        """
        ...

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        """Return the first ``most`` invocations whose cause is that with this key, without what lists leave out."""
        ...

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        """Return up to ``limit`` keys of waiting invocations of one function that match, without their number.

        A step reads a limited number of rows from behind the place ``after``, at first ``FIRST``: held invocations by
        key, ready ones in the order of execution, then delayed ones by due time. Held ones come first, so that no end
        of a returned one releases another that matches, too. ``states``, ``within`` and ``offset`` do not count. An
        invocation whose place moves during the scan may be left out.
        """
        ...

    async def standing(self, key: int, most: int) -> Standing:
        """Return the place of an invocation. At most ``most`` invocations before it are counted."""
        ...

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        """Return what waits of each of these functions.

        At most ``most`` ready and ``most`` held invocations of each are counted, and the next ``most`` delayed ones of
        all functions are read.
        """
        ...

    async def newest(self, before: float) -> float | None:
        """Return when the newest invocation was accepted before ``before`` (seconds since the epoch); None: none was.

        The time is that of its key, to the millisecond.
        """
        ...

    async def purge(self, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        """Run one step of pruning: drop some finished invocations that ended more than ``age`` seconds before ``now``.

        If more than ``rows`` finished invocations or ``size`` bytes are stored, drop the oldest regardless of their
        age; if several projects have some, only those of projects with at least their equal part. Invocations with a
        pending delivery always stay. While the clock is in doubt, it is ``ahead`` of ``now``, which is the last trusted
        time. An end more than a day ahead of the clock was stored under a wrong one, and
        becomes the clock's time (see ``model.identity.true_end``). The age of an invocation that ended under a clock
        far behind counts from its acceptance.
        """
        ...
