"""Writes of invocations: rows for their acceptance and for the end of an attempt, and calls inside a transaction.

Functions with a connection run in the writer's thread, inside the transaction that stores or ends the invocations.

Of the invocations with one ordering key, at most one, or ``per_key`` of the function, is not held, and its end releases
the next. Where there is room for more of them, because the number has grown, it releases more. No state of this order
is in memory, so an engine that takes over finds it as it is on disk. A released row becomes delayed. If it was accepted
with a delay, its due time stays, otherwise it is due now. ``Window.promote`` then makes the row ready like any other,
so that a damaged payload of one invocation never prevents the end of another. The journal announces each end by
``released``, upon which the scheduler looks for due rows. Each transaction that ends invocations with ordering keys has
a RELEASE of each key after their ends; only the discarding of a deleted function has none, because its held invocations
end too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from engine.errors import IdempotencyConflict
from engine.model import ContentKey, Invocation, Outcome, State
from engine.model.retry import HISTORY
from engine.protocols import Settlement, WaitingEnd
from engine.protocols.calls import CALL
from engine.storage.sqlite.batch import Row, Statement, WritingConnection
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
#: Statement that returns the states of the key's first unended invocations, held ones first.
_UNENDED = (
    "SELECT state FROM invocation INDEXED BY ordering WHERE function_id = ? AND ordering_key = ? AND state < 3"
    " ORDER BY state LIMIT ?"
)


def _end_row(key: int, state: State, outcome: Outcome) -> tuple[Any, ...]:
    """Return the values of ``_END``. The second and third have a place in the sum of an end, but no column here."""
    end = (STORED[state], None, None, outcome.ended_at, outcome.code, outcome.message)
    return (*end, row_sum(*end), key)


def _release_row(per_key: Mapping[int, int], function_id: int, *values: Any) -> tuple[Statement, Row]:
    if (most := per_key.get(function_id, 1)) == 1:
        return Statement.RELEASE, (function_id, *values)
    return Statement.RELEASE_MORE, (function_id, *values, most)


def end_all(
    db: WritingConnection, keys: Sequence[int], end: WaitingEnd, per_key: Mapping[int, int]
) -> Sequence[tuple[int, int]]:
    """End waiting invocations. Return key and payload size of those that waited."""
    ended: list[tuple[int, int]] = []
    rows: list[tuple[Statement, Row]] = []
    returned = f"{_END} RETURNING function_id, size, attempt, ordering_key, source"
    for key in keys:
        row = db.execute(returned, _end_row(key, end.state, end.outcome)).fetchone()
        if row is None:
            continue
        function_id, size, attempt, ordering_key, source = row
        if source == CALL:
            rows.append((Statement.COUNT, (True, key, True)))
        # result and log of an earlier attempt
        kept = 0 if attempt == 1 else db.execute(f"SELECT {RESULT_SIZE.format('?1')}", (key,)).fetchone()[0]
        rows += [(Statement.TALLY, (function_id, -1, -size)), (Statement.TALLY, (-function_id, 1, size + kept))]
        if ordering_key is not None:
            rows.append(_release_row(per_key, function_id, ordering_key, end.outcome.ended_at))
        if (to := end.deliver_to) is not None:
            pending = (key, function_id, "failure", to.destination, to.param, end.outcome.ended_at)
            rows.append((Statement.ADD_DELIVERY, pending))
        ended.append((key, size))
    db.run_rows(rows)
    return ended


def append_rows(i: Invocation, *, held: bool = False) -> tuple[tuple[Statement, Row], ...]:
    """Return the rows that store an invocation, behind another one of its ordering key if it is ``held``."""
    size = len(i.payload)
    rows: tuple[tuple[Statement, Row], ...] = (
        (Statement.APPEND, (HELD if held else DELAYED if i.delayed else READY, *_KEPT(i), size)),
        (Statement.PAYLOAD, (i.key, i.payload)),
        (Statement.TALLY, (i.function_id, 1, size)),
    )
    if not (i.ordering_key or i.trace or i.trigger_id or i.cause):
        return rows
    begun = 1 if i.delayed and i.ordering_key else 0  # tells the release of its order to keep the due time
    rare = (i.ordering_key or None, i.trace or None, i.trigger_id or None, i.cause or None, begun, i.key)
    return (*rows, (Statement.RARE, rare))


def insert_all(db: WritingConnection, invocations: Sequence[Invocation], per_key: Mapping[int, int]) -> frozenset[int]:
    """Store invocations in their order. Return the keys of those that are held."""
    held, room = set[int](), dict[tuple[int, str], int]()
    for invocation in invocations:
        if invocation.ordering_key:
            key = invocation.function_id, invocation.ordering_key
            if key not in room:
                most = per_key.get(invocation.function_id, 1)
                states = db.execute(_UNENDED, (*key, most)).fetchall()
                room[key] = 0 if (HELD,) in states else most - len(states)
            if room[key] <= 0:
                held.add(invocation.key)
            room[key] -= 1
    db.run_rows(
        row
        for invocation in invocations
        for row in append_rows(invocation, held=invocation.held or invocation.key in held)
    )
    return frozenset(held)


def settle_rows(settlement: Settlement, per_key: Mapping[int, int]) -> tuple[tuple[Statement, Row], ...]:
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
        if before.source == CALL:
            rows.append((Statement.COUNT, (not outcome.ok or not settlement.ran, before.key, False)))
        rows.append((Statement.FINISH, (*end, before.attempt, before.key)))
        if before.ordering_key:
            rows.append(_release_row(per_key, before.function_id, before.ordering_key, outcome.ended_at))
        rows.append((Statement.TALLY, (before.function_id, -1, -len(before.payload))))
        rows.append((Statement.TALLY, (-before.function_id, 1, size)))
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
    instance = f"{outcome.instance} {outcome.node}" if outcome.node else outcome.instance or None
    details = (log or None, decision, outcome.progress, outcome.note or None, instance)
    rows: list[tuple[Statement, Row]] = [(Statement.ATTEMPT, row + details)]
    if log:
        rows.append((Statement.TALLY, (-before.function_id, 0, len(log))))
    if before.attempt > HISTORY:
        oldest = (before.key, before.attempt - HISTORY)
        rows += [(Statement.UNTALLY_ATTEMPTS, oldest), (Statement.DROP_ATTEMPTS, oldest)]
    return rows


def claim(db: sqlite3.Connection, invocation: Invocation, idempotency_key: str, retention: float) -> int | None:
    """Store only the idempotency key and return None. For a key in use, return the earlier invocation's key.

    Raises IdempotencyConflict if the earlier invocation has another payload, or a ContentKey had other content.
    """
    content, repeats = invocation.payload, None
    if isinstance(idempotency_key, ContentKey):
        content, repeats = idempotency_key.content, idempotency_key.repeats
    digest = blake2b(content, digest_size=20 if repeats else 16).digest()
    earlier = db.execute(
        "SELECT key, digest FROM idempotency WHERE function_id = ? AND token = ? AND expires > ?",
        (invocation.function_id, idempotency_key, invocation.expires_others_at),
    ).fetchone()
    if earlier:
        known = earlier[1] == digest
        if repeats and len(earlier[1]) != len(digest):  # the digest of a payload; if that is purged, nobody can tell
            stored = db.execute("SELECT body FROM payload WHERE key = ?", (earlier[0],)).fetchone()
            known = stored is not None and repeats(stored[0])
        if not known:
            raise IdempotencyConflict(idempotency_key)
        return int(earlier[0])
    db.execute(
        "INSERT OR REPLACE INTO idempotency (function_id, token, key, digest, expires) VALUES (?,?,?,?,?)",
        (invocation.function_id, idempotency_key, invocation.key, digest, invocation.accepted_on_clock + retention),
    )
    return None
