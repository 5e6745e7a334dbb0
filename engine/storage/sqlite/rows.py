"""Conversion of invocations to rows of the database, and of rows to invocations and records."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from engine.model import Attempt, Invocation, Record, State
from engine.model.identity import Identity
from engine.model.retry import MAX_CRASHES, MAX_START_CRASHES
from engine.model.retry_rules import Decision
from engine.storage.sqlite.checksums import payload_problem

HELD, READY, DELAYED, RUNNING = -1, 0, 1, 2
STORED: dict[State, int] = {State.RUNNING: 2, State.SUCCESS: 3, State.FAIL: 4, State.DISCARD: 5}
SHOWN: dict[int, State] = {
    HELD: State.WAIT,
    READY: State.WAIT,
    DELAYED: State.WAIT,
    **{number: state for state, number in STORED.items()},
}

#: Columns from which ``to_invocation`` makes an invocation, for SELECT from invocation LEFT JOIN payload USING (key).
RUNNABLE = (
    "key, function_id, version, alias, source, priority, rank, first_due, due, attempt, failures, deaths, hops, memory,"
    " start_deaths, ordering_key, size, body, payload.sum, trace, cause,"
    " CASE source WHEN 'CALL' THEN (SELECT parent FROM call WHERE call.key = invocation.key) END"
)
BODY = 17  #: position of the payload in ``RUNNABLE``
#: Columns from which ``to_record`` makes a record without payload, result, log and attempts.
LISTED = (
    "key, function_id, version, alias, source, state, priority, due, started, ended, attempt, code, message, hops,"
    " ordering_key, trigger_id"
)


#: Condition for running rows that one more crash makes fail.
POISONED = f"(CASE begun WHEN 1 THEN deaths >= {MAX_CRASHES} ELSE start_deaths >= {MAX_START_CRASHES} END)"
#: Return of running rows to WAIT after a crash, without its WHERE clause.
REVIVE = "UPDATE invocation SET state = 0, deaths = deaths + begun, start_deaths = start_deaths + 1 - begun"
#: Bytes of a result and its log, and of the logs in the history of an invocation, for the SQL of its key.
RESULT_SIZE = "coalesce((SELECT length(body) + length(log) FROM result WHERE key = {}), 0)"
LOGS_SIZE = "coalesce((SELECT sum(length(log)) FROM attempt WHERE key = {}), 0)"


#: Attempts of an invocation, for ``to_attempt``.
ATTEMPTS = (
    "SELECT attempt, started, ended, code, message, log, decision, progress, note, instance FROM attempt WHERE key = ?"
    " ORDER BY attempt"
)


def to_invocation(row: tuple[Any, ...], identity: Identity) -> Invocation:
    """Make an invocation from a row. If the payload is damaged, ``damage`` of the invocation is set."""
    size, payload, stored, trace, cause, parent = row[BODY - 1 : BODY + 5]
    damage = payload_problem(row[0], size, payload, stored)
    if damage:
        payload = bytes(size)  # as long as the payload was, so that the sums of the backlog stay right
    invocation = Invocation(  # at most 15 arguments, see ``InvocationFactory.make``
        key=row[0],
        request_id=identity.request_id(row[0]),
        function_id=row[1],
        version=row[2],
        alias=row[3],
        source=row[4],
        priority=row[5],
        rank=row[6],
        first_due_at=row[7],
        due_at=row[8],
        attempt=row[9],
        failures=row[10],
        crash_count=row[11],
        hops=row[12],
        memory=row[13],
        payload=payload,
    )
    if trace or cause or parent:
        above = identity.request_id(parent or cause) if parent or cause else ""
        invocation = replace(invocation, trace=trace or "", cause=cause or 0, parent=above)
    if row[14] or row[15] or damage:
        return replace(invocation, start_crashes=row[14], ordering_key=row[15] or "", damage=damage)
    return invocation


def to_crashed(row: tuple[Any, ...], identity: Identity) -> Invocation:
    """Return the invocation of a running row that is followed by ``begun``, with the crash added to its counts."""
    invocation, begun = to_invocation(row, identity), row[-1]
    return replace(
        invocation, crash_count=invocation.crash_count + begun, start_crashes=invocation.start_crashes + 1 - begun
    )


def to_record(row: tuple[Any, ...], identity: Identity, **large: Any) -> Record:
    return Record(
        key=row[0],
        request_id=identity.request_id(row[0]),
        function_id=row[1],
        version=row[2],
        alias=row[3],
        source=row[4],
        state=SHOWN[row[5]],
        priority=row[6],
        due_at=row[7],
        started_at=row[8],
        ended_at=row[9],
        attempt=row[10],
        code=row[11],
        message=row[12],
        hops=row[13],
        ordering_key=row[14] or "",
        held=row[5] == HELD,
        trigger_id=row[15] or "",
        **large,
    )


def to_attempt(row: tuple[Any, ...]) -> Attempt:
    attempt, started, ended, code, message, log, decision, progress, note, ran_by = row
    instance, _, node = (ran_by or "").partition(" ")
    return Attempt(
        attempt=attempt,
        started_at=started,
        ended_at=ended,
        code=code,
        message=message,
        log=log or b"",
        decision=None if decision is None else msgspec.json.decode(decision, type=Decision),
        progress=progress,
        note=note or "",
        instance=instance,
        node=node,
    )


def marks(count: int) -> str:
    """Return placeholders for values in an SQL statement."""
    return ",".join("?" * count)
