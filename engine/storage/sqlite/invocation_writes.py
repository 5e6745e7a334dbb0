"""Writes of invocations: rows for their acceptance and for the end of an attempt, and calls inside a transaction.

Functions with a connection run in the writer's thread, inside the transaction that stores or ends the invocations.

Of the invocations with one ordering key, at most one is not held, and its end releases the next. No state of this order
is in memory, so an engine that takes over finds it as it is on disk. A released row becomes delayed. If it was accepted
with a delay, its due time stays, otherwise it is due now. ``Window.promote`` then makes the row ready like any other,
so that a damaged payload of one invocation never prevents the end of another. The journal announces each end by
``released``, upon which the scheduler looks for due rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from engine.errors import IdempotencyConflict
from engine.model import ContentKey, Invocation, Outcome, State
from engine.model.retry import HISTORY
from engine.protocols import Settlement, WaitingEnd
from engine.storage.sqlite.batch import SQL, Row, Statement, insert_rows, summed, with_sums
from engine.storage.sqlite.checksums import row_sum
from engine.storage.sqlite.rows import DELAYED, HELD, READY, RESULT_SIZE, STORED

#: End of a waiting invocation, with the values of ``_end_row``.
_END = (
    "UPDATE invocation SET state = ?1, ended = ?4, code = ?5, message = ?6, sum = sum + ?7"
    " WHERE key = ?8 AND state IN (-1, 0, 1)"
)
#: Attributes in the order of the columns ``MOVED`` and ``FIXED`` of ``checksums``, up to the size.
_KEPT = attrgetter(
    *("rank", "due_at", "attempt", "key", "function_id", "version", "alias", "source", "priority", "first_due_at"),
    *("hops", "memory"),
)
#: Statement that returns a row if another invocation of the key has not ended.
_UNENDED = (
    "SELECT 1 FROM invocation INDEXED BY ordering WHERE function_id = ? AND ordering_key = ? AND state < 3 LIMIT 1"
)


def _append_row(i: Invocation) -> tuple[Any, ...]:
    return (DELAYED if i.delayed else READY, *_KEPT(i), len(i.payload))


def _rare_row(i: Invocation) -> tuple[Any, ...] | None:
    """Return the row for the columns that few invocations have, or None.

    ``begun`` of an invocation with an ordering key tells its release to keep its due time.
    """
    if not (i.ordering_key or i.trace or i.trigger_id or i.cause):
        return None
    begun = 1 if i.delayed and i.ordering_key else 0
    return (i.ordering_key or None, i.trace or None, i.trigger_id or None, i.cause or None, begun, i.key)


def _end_row(key: int, state: State, outcome: Outcome) -> tuple[Any, ...]:
    """Return the values of ``_END``. The second and third have a place in the sum of an end, but no column here."""
    end = (STORED[state], None, None, outcome.ended_at, outcome.code, outcome.message)
    return (*end, row_sum(*end), key)


def end_all(db: sqlite3.Connection, keys: Sequence[int], end: WaitingEnd) -> Sequence[tuple[int, int]]:
    """End waiting invocations. Return key and payload size of those that waited."""
    ended: list[tuple[int, int]] = []
    returned = f"{_END} RETURNING function_id, size, attempt, ordering_key"
    for key in keys:
        row = db.execute(returned, _end_row(key, end.state, end.outcome)).fetchone()
        if row is None:
            continue
        function_id, size, attempt, ordering_key = row
        if ordering_key is not None:
            release_successors(db, [(function_id, ordering_key)], end.outcome.ended_at)
        # result and log of an earlier attempt
        kept = 0 if attempt == 1 else db.execute(f"SELECT {RESULT_SIZE.format('?1')}", (key,)).fetchone()[0]
        db.executemany(SQL[Statement.TALLY], [(function_id, -1, -size), (0, 1, size + kept)])
        if (to := end.deliver_to) is not None:
            pending = (key, function_id, "failure", to.destination, to.param, end.outcome.ended_at)
            db.execute(SQL[Statement.ADD_DELIVERY], pending)
        ended.append((key, size))
    return ended


def append_rows(invocation: Invocation) -> tuple[tuple[Statement, Row], ...]:
    rare = _rare_row(invocation)
    rows: tuple[tuple[Statement, Row], ...] = (
        (Statement.APPEND, _append_row(invocation)),
        (Statement.PAYLOAD, (invocation.key, invocation.payload)),
        (Statement.TALLY, (invocation.function_id, 1, len(invocation.payload))),
    )
    return rows if rare is None else (*rows, (Statement.RARE, rare))


def insert_all(db: sqlite3.Connection, invocations: Sequence[Invocation]) -> frozenset[int]:
    """Store invocations. Return the keys of those that are held."""
    insert_rows(db, Statement.APPEND, [_append_row(one) for one in invocations if not one.ordering_key])
    rare = [row for one in invocations if not one.ordering_key and (row := _rare_row(one))]
    db.executemany(SQL[Statement.RARE], with_sums(Statement.RARE, rare))
    ordered = [one for one in invocations if one.ordering_key]
    held = frozenset(one.key for one in ordered if _insert_ordered(db, one))
    insert_rows(db, Statement.PAYLOAD, [(one.key, one.payload) for one in invocations])
    db.executemany(SQL[Statement.TALLY], summed([(one.function_id, 1, len(one.payload)) for one in invocations]))
    return held


def settle_rows(settlement: Settlement) -> tuple[tuple[Statement, Row], ...]:
    """Return the rows that store the end of an attempt."""
    before, outcome = settlement.invocation, settlement.outcome
    rows: list[tuple[Statement, Row]] = []
    if settlement.retry is not None:
        after = settlement.retry
        moved = (after.rank, after.due_at, after.attempt, after.failures, outcome.code, outcome.message)
        row: Row = (*moved, before.key, before.rank, before.due_at, before.attempt)
        rows.append((Statement.RETRY, row))
    else:
        failures = before.failures + (settlement.ran and not outcome.ok and not outcome.engine_fault)
        started = outcome.started_at if settlement.ran else None
        end = (STORED[settlement.state], failures, started, outcome.ended_at, outcome.code, outcome.message)
        size = len(before.payload) + len(outcome.result) + len(outcome.log)
        rows.append((Statement.FINISH, (*end, before.attempt, before.key)))
        if before.ordering_key:
            rows.append((Statement.RELEASE, (before.function_id, before.ordering_key, outcome.ended_at)))
        rows.append((Statement.TALLY, (before.function_id, -1, -len(before.payload))))
        rows.append((Statement.TALLY, (0, 1, size)))
    if outcome.result or outcome.log or before.attempt > 1:  # replaces result and log of an earlier attempt
        rows.append((Statement.RESULT, (before.key, outcome.result, outcome.log)))
    if settlement.in_history:
        rows.extend(_attempt_rows(settlement))
    if settlement.deliver_to is not None:
        to, condition = settlement.deliver_to, "success" if settlement.state is State.SUCCESS else "failure"
        pending = (before.key, before.function_id, condition, to.destination, to.param, outcome.ended_at)
        rows.append((Statement.ADD_DELIVERY, pending))
    return tuple(rows)


def _attempt_rows(settlement: Settlement) -> list[tuple[Statement, Row]]:
    """Return the rows for the history of an attempt that ran.

    The log is stored here only if another attempt follows, which overwrites it in the table of results.
    """
    before, outcome = settlement.invocation, settlement.outcome
    row = (before.key, before.attempt, outcome.started_at, outcome.ended_at, outcome.code, outcome.message)
    log = outcome.log if settlement.retry is not None else b""
    decision = None if settlement.decision is None else msgspec.json.encode(settlement.decision).decode()
    details = (log or None, decision, outcome.progress, outcome.note or None, outcome.instance or None)
    rows: list[tuple[Statement, Row]] = [(Statement.ATTEMPT, row + details)]
    if log:
        rows.append((Statement.TALLY, (0, 0, len(log))))
    if before.attempt > HISTORY:
        oldest = (before.key, before.attempt - HISTORY)
        rows += [(Statement.UNTALLY_ATTEMPTS, oldest), (Statement.DROP_ATTEMPTS, oldest)]
    return rows


def _insert_ordered(db: sqlite3.Connection, invocation: Invocation) -> bool:
    """Store the row of an invocation with an ordering key. Return True if it is held behind another."""
    key = invocation.function_id, invocation.ordering_key
    held = db.execute(_UNENDED, key).fetchone() is not None
    state, *row = _append_row(invocation)
    insert_rows(db, Statement.APPEND, [(HELD if held else state, *row)])
    db.executemany(SQL[Statement.RARE], with_sums(Statement.RARE, [_rare_row(invocation) or ()]))
    return held


def release_successors(db: sqlite3.Connection, keys: Iterable[tuple[int, str]], now: float) -> None:
    """Release the next invocation of each (function id, ordering key) of which none is ready, delayed or running.

    Each transaction that ends invocations with ordering keys calls this after their ends. Only the discarding of a
    deleted function does not, because its held invocations end too. After the commit, call ``released`` of the journal.
    A key with nothing to release does no harm, nor does a second call.
    """
    db.executemany(SQL[Statement.RELEASE], [(*key, now) for key in keys])


def claim(db: sqlite3.Connection, invocation: Invocation, idempotency_key: str, retention: float) -> int | None:
    """Store only the idempotency key and return None. For a key in use, return the earlier invocation's key.

    Raises IdempotencyConflict if the earlier invocation has another payload, or a ContentKey had other content.
    """
    content = idempotency_key.content if isinstance(idempotency_key, ContentKey) else invocation.payload
    digest = blake2b(content, digest_size=16).digest()
    earlier = db.execute(
        "SELECT key, digest FROM idempotency WHERE function_id = ? AND token = ? AND expires > ?",
        (invocation.function_id, idempotency_key, invocation.expires_others_at),
    ).fetchone()
    if earlier:
        if earlier[1] != digest:
            raise IdempotencyConflict(idempotency_key)
        return int(earlier[0])
    db.execute(
        "INSERT OR REPLACE INTO idempotency (function_id, token, key, digest, expires) VALUES (?,?,?,?,?)",
        (invocation.function_id, idempotency_key, invocation.key, digest, invocation.accepted_on_clock + retention),
    )
    return None
