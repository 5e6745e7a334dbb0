"""Pruning of finished invocations with all their rows, in steps of a few milliseconds in the writer's thread."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from engine.model.identity import Identity, accepted_at, key_at
from engine.protocols import Purged
from engine.storage.sqlite.batch import SQL, Statement

#: Limits of one step: rows scanned, bytes dropped, idempotency keys dropped, pages returned to the file system.
STEP_ROWS, STEP_SIZE, STEP_IDEMPOTENCY_KEYS, STEP_PAGES = 200, 8 << 20, 500, 256
#: Free pages that the file keeps for new rows; further ones are returned to the file system.
FREE_PAGES = 4096


class Scan(Struct):
    """Findings of one step, in the order of acceptance."""

    drop: list[int]
    kept_rows: int
    kept_size: int
    dropped_size: int = 0
    reached: int = 0  #: last key scanned
    complete: bool = True  #: no later row can be due for pruning
    oldest: float = math.inf  #: end of the oldest row that stays, or its earlier acceptance


class Purge:
    """Pruning in steps, with the positions at which the next step continues.

    While rows or bytes exceed the caps, each step continues at the position of the last one. A long backlog older
    than the finished rows is therefore not scanned again for every few rows. Pruning by age starts at the oldest row
    in each round.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._aged_to = self._capped_to = 0  #: keys up to these were scanned

    def step(self, db: sqlite3.Connection, now: float, age: float, rows: int, size: int) -> Purged:
        """Run one step of pruning by ``age`` in seconds and by caps of ``rows`` and of ``size`` in bytes.

        Scans in the order of acceptance and restarts at the oldest row after reaching rows too young to be dropped.
        """
        more_keys, next_expiry = _drop_idempotency_keys(db, now)
        kept_rows, kept_size = db.execute("SELECT rows, size FROM tally WHERE function_id = 0").fetchone() or (0, 0)
        if kept_rows > rows or kept_size > size:
            scan = Scan(drop=[], kept_rows=kept_rows, kept_size=kept_size, reached=self._capped_to)
            _scan_by_caps(db, scan, rows, size)
            from_middle, self._capped_to = self._capped_to > 0, 0 if scan.complete else scan.reached
            if from_middle:
                scan.complete = False  # earlier rows may have ended meanwhile
        else:
            scan = Scan(drop=[], kept_rows=kept_rows, kept_size=kept_size, reached=self._aged_to)
            _scan_by_age(db, scan, now - age)
            self._aged_to = 0 if scan.complete else scan.reached
        _drop(db, scan)
        more_pages = _release_pages(db)
        due = min(scan.oldest + age, next_expiry)
        return Purged(
            request_ids=tuple(self._identity.request_id(key) for key in scan.drop),
            more=not scan.complete or more_keys or more_pages,
            over=scan.kept_rows > rows or scan.kept_size > size,
            next_due=None if due == math.inf else due,
        )


def _scan_by_age(db: sqlite3.Connection, scan: Scan, cutoff: float) -> None:
    for key, ended, size, pending in _next_rows(db, scan):
        if key > key_at(cutoff):
            scan.complete = True  # later rows were accepted, and so ended, after the cutoff
            scan.oldest = min(scan.oldest, accepted_at(key))
            return
        scan.reached = key
        if ended is None:
            continue
        if ended > cutoff or pending:
            scan.oldest = min(scan.oldest, ended)
        elif _take(scan, key, size):
            return


def _scan_by_caps(db: sqlite3.Connection, scan: Scan, rows: int, size: int) -> None:
    for key, ended, row_size, pending in _next_rows(db, scan):
        if scan.kept_rows <= rows and scan.kept_size <= size:
            scan.complete = False  # pruning by age is still to be done
            return
        scan.reached = key
        if ended is not None and not pending and _take(scan, key, row_size):
            return


def _next_rows(db: sqlite3.Connection, scan: Scan) -> list[tuple[int, float | None, int, int]]:
    """Return the next rows: key, time of the end, bytes, and 1 if a delivery is pending."""
    found = db.execute(
        "SELECT key, ended, size + coalesce((SELECT length(body) + length(log) FROM result WHERE key = i.key), 0),"
        " EXISTS (SELECT 1 FROM owed WHERE key = i.key AND due IS NOT NULL)"
        " FROM invocation i WHERE key > ? ORDER BY key LIMIT ?",
        (scan.reached, STEP_ROWS),
    ).fetchall()
    scan.complete = len(found) < STEP_ROWS
    return found


def _take(scan: Scan, key: int, size: int) -> bool:
    """Mark a row to be dropped. Return True if that is enough for one step."""
    scan.drop.append(key)
    scan.kept_rows -= 1
    scan.kept_size -= size
    scan.dropped_size += size
    if scan.dropped_size > STEP_SIZE:
        scan.complete = False
    return scan.dropped_size > STEP_SIZE


def _drop(db: sqlite3.Connection, scan: Scan) -> None:
    keys: Sequence[tuple[int]] = [(key,) for key in scan.drop]
    if not keys:
        return
    for table in ("invocation", "payload", "result", "attempt", "owed"):
        db.executemany(f"DELETE FROM {table} WHERE key = ?", keys)
    db.execute(SQL[Statement.TALLY], (0, -len(keys), 0))
    db.execute("UPDATE tally SET size = max(0, ?) WHERE function_id = 0", (scan.kept_size,))


def _drop_idempotency_keys(db: sqlite3.Connection, now: float) -> tuple[bool, float]:
    """Drop expired idempotency keys. Return whether more may have expired, and when the next one expires."""
    dropped = db.execute(
        "DELETE FROM idempotency WHERE (function_id, token) IN"
        " (SELECT function_id, token FROM idempotency WHERE expires <= ? LIMIT ?)",
        (now, STEP_IDEMPOTENCY_KEYS),
    ).rowcount
    [next_expiry] = db.execute("SELECT min(expires) FROM idempotency").fetchone()
    return dropped == STEP_IDEMPOTENCY_KEYS, math.inf if next_expiry is None else next_expiry


def _release_pages(db: sqlite3.Connection) -> bool:
    """Shorten the file, so that its free pages count as free disk space. Return whether more are left."""
    [free] = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(max(0, free - FREE_PAGES), STEP_PAGES)):
        db.execute("PRAGMA incremental_vacuum(1)")  # one step of the statement frees one page, and execute runs one
    return bool(free - STEP_PAGES > FREE_PAGES)
