"""History of attempts: the rows that the end of an attempt writes, and the attempts that a record shows."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.model import Attempt
from engine.model.retry import HISTORY
from engine.model.retry_rules import Decision
from engine.protocols import Settlement
from engine.storage.sqlite.batch import Row, Statement

#: Attempts of an invocation, for ``to_attempt``.
ATTEMPTS = (
    "SELECT attempt, started, ended, code, message, log, decision, progress, note, instance FROM attempt WHERE key = ?"
    " ORDER BY attempt"
)


def attempt_rows(settlement: Settlement) -> list[tuple[Statement, Row]]:
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


def to_attempt(row: tuple[Any, ...]) -> Attempt:
    attempt, started, ended, code, message, log, decision, progress, note, instance = row
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
        instance=instance or "",
    )
