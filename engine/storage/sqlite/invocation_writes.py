"""Writes of invocations: rows for their acceptance and for the end of an attempt, and the end of a waiting one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.model import Invocation, Outcome, State
from engine.protocols import Settlement, WaitingEnd
from engine.storage.sqlite.attempts import attempt_rows
from engine.storage.sqlite.batch import SQL, Row, Statement, insert_rows, summed, with_sums
from engine.storage.sqlite.ordering import insert_ordered, release_successors
from engine.storage.sqlite.rows import END, RESULT_SIZE, STORED, append_row, end_row, rare_row


def cancel(db: sqlite3.Connection, key: int, outcome: Outcome, state: State = State.FAIL) -> tuple[int, int] | None:
    """End a waiting invocation. Return its function id and payload size, or None if it does not wait."""
    returned = f"{END} RETURNING function_id, size, attempt, ordering_key"
    found = db.execute(returned, end_row(key, state, outcome)).fetchone()
    if found is None:
        return None
    function_id, size, attempt, ordering_key = found
    if ordering_key is not None:
        release_successors(db, [(function_id, ordering_key)], outcome.ended_at)
    # result and log of an earlier attempt
    kept = 0 if attempt == 1 else db.execute(f"SELECT {RESULT_SIZE.format('?1')}", (key,)).fetchone()[0]
    db.executemany(SQL[Statement.TALLY], [(function_id, -1, -size), (0, 1, size + kept)])
    return function_id, size


def end_all(db: sqlite3.Connection, keys: Sequence[int], end: WaitingEnd) -> Sequence[tuple[int, int]]:
    """End waiting invocations. Return key and payload size of those that waited."""
    ended: list[tuple[int, int]] = []
    for key in keys:
        found = cancel(db, key, end.outcome, end.state)
        if found is None:
            continue
        function_id, size = found
        if (to := end.deliver_to) is not None:
            row = (key, function_id, "failure", to.destination, to.param, end.outcome.ended_at)
            db.execute(SQL[Statement.ADD_DELIVERY], row)
        ended.append((key, size))
    return ended


def append_rows(invocation: Invocation) -> tuple[tuple[Statement, Row], ...]:
    rare = rare_row(invocation)
    rows: tuple[tuple[Statement, Row], ...] = (
        (Statement.APPEND, append_row(invocation)),
        (Statement.PAYLOAD, (invocation.key, invocation.payload)),
        (Statement.TALLY, (invocation.function_id, 1, len(invocation.payload))),
    )
    return rows if rare is None else (*rows, (Statement.RARE, rare))


def insert_all(db: sqlite3.Connection, invocations: Sequence[Invocation]) -> frozenset[int]:
    """Store invocations. Return the keys of those that are held."""
    insert_rows(db, Statement.APPEND, [append_row(one) for one in invocations if not one.ordering_key])
    rare = [row for one in invocations if not one.ordering_key and (row := rare_row(one))]
    db.executemany(SQL[Statement.RARE], with_sums(Statement.RARE, rare))
    ordered = [one for one in invocations if one.ordering_key]
    held = frozenset(one.key for one in ordered if insert_ordered(db, one))
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
        rows.extend(attempt_rows(settlement))
    if settlement.deliver_to is not None:
        to, condition = settlement.deliver_to, "success" if settlement.state is State.SUCCESS else "failure"
        pending = (before.key, before.function_id, condition, to.destination, to.param, outcome.ended_at)
        rows.append((Statement.ADD_DELIVERY, pending))
    return tuple(rows)
