"""Pruning of finished invocations in all tables, in steps of a few milliseconds on the writer's thread.

The table ``tally`` has rows and bytes of ended invocations: of all functions under 0, of each under its negative id,
which show the project with most. The bytes of the latter are estimates.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from engine.model.identity import AHEAD, Identity, accepted_at, key_at, true_end
from engine.protocols import Purged
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.rows import LOGS_SIZE, RESULT_SIZE

#: Limits of one step: invocations scanned, bytes dropped, idempotency keys dropped, pages freed in the file system.
STEP_ROWS, STEP_SIZE, STEP_IDEMPOTENCY_KEYS, STEP_PAGES = 200, 8 << 20, 500, 256
#: Free pages that stay in the file for new rows. All further free pages are returned to the file system.
FREE_PAGES = 4096
#: Least seconds between two scans of the keys ahead of the clock, which are all newer rows after a wrong clock.
LOOK_AHEAD = 600.0

#: Row of a scan: key, end (None: not ended), size in bytes, 1 if a delivery or its group still needs it, last attempt,
#: and function.
_Row = tuple[int, float | None, int, int, int, int]
_NEXT = (  # of some rows, see ``_next_rows``
    f"SELECT key, ended, size + {RESULT_SIZE.format('i.key')}"
    f" + CASE WHEN attempt > 1 THEN {LOGS_SIZE.format('i.key')} ELSE 0 END,"
    " EXISTS (SELECT 1 FROM owed WHERE key = i.key AND due IS NOT NULL)"
    " OR (source = 'CALL' AND EXISTS (SELECT 1 FROM call c JOIN call_group g ON g.key = c.grp"
    " LEFT JOIN invocation n ON n.key = g.key WHERE c.key = i.key AND (g.ended IS NULL OR n.state < 3))),"
    " attempt, function_id"
    " FROM invocation i WHERE {} key > ?1 ORDER BY key LIMIT ?2"
)
#: Links of dropped invocations. Those to a parent stay until it has ended, because it may be repeated until then.
_UNLINK = (
    "DELETE FROM call WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM invocation WHERE key = parent AND state < 3)",
    "DELETE FROM call WHERE parent = ?1 AND NOT EXISTS (SELECT 1 FROM invocation i WHERE i.key = call.key)",
    "DELETE FROM call_group WHERE key = ?1",
)
#: Groups without a continuation.
_DROP_GROUPS = (
    "DELETE FROM call_group WHERE key IN (SELECT key FROM call_group INDEXED BY call_group_alone"
    " WHERE kind = 2 AND ended <= ? LIMIT ?)"
)
#: Functions with ended invocations: project (NULL: the function was deleted), id, and a sum.
_HOLDERS = (
    "SELECT project, -t.function_id, t.{} FROM tally t LEFT JOIN function f ON f.function_id = -t.function_id"
    " WHERE t.function_id < 0 AND t.rows > 0"
)


class Scan(Struct):
    """Position and results of one scan for rows to prune, over invocations in the order of acceptance."""

    drop: dict[int, int]  #: functions by key
    kept_rows: int
    kept_size: int
    attempts: dict[int, int] = {}  #: last attempts of rows to drop that had several, by key
    dropped_size: int = 0
    reached: int = 0  #: last key scanned
    complete: bool = True  #: the scan reached the last row that may be due for pruning
    oldest: float = math.inf  #: earliest end of a row that stays, or acceptance of a row too young to be dropped


class Purge:
    """Pruning in steps. A step by age and a step by count or size each continue at the position of the last such step.

    A long backlog that is older than the finished rows is therefore scanned once per round, not once per step. After a
    complete scan, the next step restarts at the oldest row.

    Keys are in the order of acceptance, so that a scan by age ends at the first young one. If the clock was ahead once,
    keys are ahead of it since then, and say nothing about the age. Such rows are all scanned, but rarely.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._aged_to = 0  #: last key scanned by age; 0: start at the oldest row
        self._capped_to: dict[int, int] = {}  #: the same by caps, of each function, or of all under 0
        self._done: set[int] = set()  #: functions all of whose rows were scanned by caps in this round; 0: all
        self._drops = False  #: the present scan by caps has found rows to drop
        self._doubt = 0.0  #: seconds by which a doubtful clock is ahead
        self._looks_ahead = False  #: the scan by age has reached the keys ahead of the clock
        self._look_ahead_at = self._oldest_ahead = math.inf  #: next scan of keys ahead of the clock, and its oldest end

    def step(self, db: sqlite3.Connection, now: float, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        """Run one step of pruning.

        If more than ``rows`` finished invocations or ``size`` bytes are stored, drop finished invocations in the order
        of acceptance; if several projects have some, those of the function with most, of the project with most, and
        none of projects with less than their equal part. Otherwise, or if none of
        these may be dropped, drop invocations that ended more than ``age``
        seconds before ``now``, of which a doubtful clock is ``ahead``.
        """
        self._doubt = ahead
        more_keys, next_expiry = _drop_idempotency_keys(db, now)
        db.execute(_DROP_GROUPS, (now - age, STEP_ROWS))
        scan, over = self._scan(db, now, age, rows, size)
        _drop(db, scan)
        return self._purged(scan, over, age, next_expiry, more=more_keys | _release_pages(db))

    def _scan(self, db: sqlite3.Connection, now: float, age: float, rows: int, size: int) -> tuple[Scan, bool]:
        """Scan the next rows. Return the scan, and whether rows or bytes still exceed their caps."""
        kept_rows, kept_size = db.execute("SELECT rows, size FROM tally WHERE function_id = 0").fetchone() or (0, 0)
        over = kept_rows > rows or kept_size > size
        function_id = self._holder(db, "rows" if kept_rows > rows else "size") if over else -1
        if function_id >= 0:
            begin = self._capped_to.get(function_id, 0)
            scan = Scan(drop={}, kept_rows=kept_rows, kept_size=kept_size, reached=begin)
            _scan_by_caps(_next_rows(db, scan, function_id), scan, rows, size)
            self._capped_to[function_id] = scan.reached
            self._drops = bool(scan.drop) or (self._drops and begin > 0)
            if scan.complete:
                del self._capped_to[function_id]
                if function_id or not self._drops:
                    self._done.add(function_id)
            scan.complete = False  # rows before the start may have ended meanwhile, or a step by age follows
        else:
            scan = Scan(drop={}, kept_rows=kept_rows, kept_size=kept_size, reached=self._aged_to)
            self._scan_by_age(db, _next_rows(db, scan), scan, now, age)
            self._aged_to = 0 if scan.complete else scan.reached
            if scan.complete or not over:
                self._done.clear()
        return scan, scan.kept_rows > rows or scan.kept_size > size

    def _holder(self, db: sqlite3.Connection, column: str) -> int:
        """Return the function of the rows that a step by caps drops; 0: any, -1: none is left in this round."""
        held: dict[str | None, dict[int, int]] = {}
        for project, function_id, amount in db.execute(_HOLDERS.format(column)):
            held.setdefault(project, {})[function_id] = amount
        if len(held) < 2:
            return -1 if 0 in self._done else 0
        sums = {project: sum(functions.values()) for project, functions in held.items()}
        for project in sorted(sums, key=sums.__getitem__, reverse=True):
            functions = held[project].keys() - self._done if sums[project] * len(sums) >= sum(sums.values()) else ()
            if functions:
                return max(functions, key=held[project].__getitem__)
        return -1

    def _purged(self, scan: Scan, over: bool, age: float, next_expiry: float, *, more: bool) -> Purged:
        due = min(scan.oldest + age, next_expiry, self._look_ahead_at)
        return Purged(
            request_ids=tuple(self._identity.request_id(key) for key in scan.drop),
            attempts={self._identity.request_id(key): scan.attempts[key] for key in scan.drop if key in scan.attempts},
            functions=tuple(scan.drop.values()),
            more=not scan.complete or more,
            over=over,
            next_due=None if due == math.inf else due,
        )

    def _scan_by_age(self, db: sqlite3.Connection, page: list[_Row], scan: Scan, now: float, age: float) -> None:
        cutoff, ahead = now - age, key_at(now + AHEAD)
        for key, ended, size, pending, attempt, function_id in page:
            if key > key_at(cutoff) and not self._looks_ahead:
                if key <= ahead:  # all later rows up to the clock were accepted after the cutoff, and ended after it
                    scan.oldest = min(scan.oldest, accepted_at(key))
                scan.complete = not self._look_ahead(db, scan, ahead, now)
                return
            scan.reached = key
            if ended is None:
                continue
            if (end := true_end(ended, now + self._doubt)) != ended:
                db.execute("UPDATE invocation SET ended = ?, sum = NULL WHERE key = ?", (end, key))
            if end > cutoff or pending:
                scan.oldest = min(scan.oldest, end)
            elif _take(scan, key, function_id, size, attempt):
                break
        if self._looks_ahead:
            self._note_ahead(scan, now, age)

    def _look_ahead(self, db: sqlite3.Connection, scan: Scan, ahead: int, now: float) -> bool:
        """Let the next step continue with the keys ahead of the clock. Return False if there are none, or not yet."""
        [newest] = db.execute("SELECT max(key) FROM invocation").fetchone()
        if newest is None or newest <= ahead:
            self._look_ahead_at = math.inf
            return False
        if now < self._look_ahead_at < math.inf:
            return False
        scan.reached, self._looks_ahead, self._oldest_ahead = ahead, True, math.inf
        return True

    def _note_ahead(self, scan: Scan, now: float, age: float) -> None:
        """Note the oldest end among keys ahead of the clock, from which the time of their next scan follows."""
        self._oldest_ahead = min(self._oldest_ahead, scan.oldest)
        if scan.complete:
            self._looks_ahead = False
            self._look_ahead_at = max(now + LOOK_AHEAD, min(self._oldest_ahead, now) + age)


def _next_rows(db: sqlite3.Connection, scan: Scan, function_id: int = 0) -> list[_Row]:
    """Return the next rows of a scan, of all functions, or ended ones of a function by the index ``finished``."""
    own = "function_id = ?3 AND state >= 3 AND" if function_id else "?3 = 0 AND"
    rows: list[_Row] = db.execute(_NEXT.format(own), (scan.reached, STEP_ROWS, function_id)).fetchall()
    scan.complete = len(rows) < STEP_ROWS
    return rows


def _scan_by_caps(page: list[_Row], scan: Scan, rows: int, size: int) -> None:
    for key, ended, row_size, pending, attempt, function_id in page:
        if scan.kept_rows <= rows and scan.kept_size <= size:
            scan.complete = False  # the next step prunes by age
            return
        scan.reached = key
        if ended is not None and not pending and _take(scan, key, function_id, row_size, attempt):
            return


def _take(scan: Scan, key: int, function_id: int, size: int, attempt: int) -> bool:
    """Add a row to the rows that this step drops. Return True when they exceed the bytes allowed in one step."""
    scan.drop[key] = function_id
    if attempt > 1:
        scan.attempts[key] = attempt
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
    for table in ("invocation", "owed", "result", "attempt", "payload"):
        db.executemany(f"DELETE FROM {table} WHERE key = ?", keys)
    for statement in _UNLINK:
        db.executemany(statement, keys)
    db.execute(SQL[Statement.TALLY], (0, -len(keys), 0))
    db.execute("UPDATE tally SET size = max(0, ?) WHERE function_id = 0", (scan.kept_size,))
    # Of the mean size, so that an estimate ends with the rows for which it was made.
    own = [(rows, -function_id) for function_id, rows in Counter(scan.drop.values()).items()]
    size = "max(0, size - size * ?1 / max(1, rows))"
    db.executemany(f"UPDATE tally SET size = {size}, rows = max(0, rows - ?1) WHERE function_id = ?2", own)
    db.executemany("DELETE FROM tally WHERE function_id = ?2 AND rows = 0 AND ?1 > 0", own)


def _drop_idempotency_keys(db: sqlite3.Connection, now: float) -> tuple[bool, float]:
    """Drop expired idempotency keys, up to the number allowed in one step.

    Return True if more keys may have expired, and the time at which the next key expires (infinity if there is none).
    """
    dropped = db.execute(
        "DELETE FROM idempotency WHERE (function_id, token) IN"
        " (SELECT function_id, token FROM idempotency WHERE expires <= ? LIMIT ?)",
        (now, STEP_IDEMPOTENCY_KEYS),
    ).rowcount
    [next_expiry] = db.execute("SELECT min(expires) FROM idempotency").fetchone()
    return dropped == STEP_IDEMPOTENCY_KEYS, math.inf if next_expiry is None else next_expiry


def _release_pages(db: sqlite3.Connection) -> bool:
    """Return unused pages of the database file to the file system, up to the number allowed in one step.

    Return True if more unused pages are left.
    """
    [free] = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(max(0, free - FREE_PAGES), STEP_PAGES)):
        db.execute("PRAGMA incremental_vacuum(1)")  # execute runs one step of the statement, which frees one page
    return bool(free - STEP_PAGES > FREE_PAGES)
