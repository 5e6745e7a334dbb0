"""Dropping what is finished, and what it leaves behind, in steps of a few milliseconds of the writer's time."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from engine.model.identity import Identity, accepted_at, key_at
from engine.protocols import Purged
from engine.storage.sqlite.batch import SQL, Statement

#: What one step does at most: rows looked at, bytes dropped, tokens forgotten, pages given back to the disk.
STEP_ROWS, STEP_SIZE, STEP_TOKENS, STEP_PAGES = 200, 8 << 20, 500, 256
#: Pages that may lie free in the file for the next rows; more are given back.
FREE_PAGES = 4096


class Walk(Struct):
    """What a step found, in the order of acceptance."""

    drop: list[int]
    kept_rows: int
    kept_size: int
    dropped_size: int = 0
    reached: int = 0  #: the last key looked at
    complete: bool = True  #: nothing behind it can have to go
    oldest: float = math.inf  #: end (or, no later, acceptance) of the oldest that stays


class Purge:
    """While more is kept than the caps allow, it walks on from where it last stopped doing so: a long backlog in front
    of what has ended is not gone through again for every few rows. For the age it begins in front each round.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._aged_to = self._capped_to = 0  #: everything below was looked at

    def step(self, db: sqlite3.Connection, now: float, age: float, rows: int, size: int) -> Purged:
        """Walks in the order of acceptance, and begins anew when it reaches rows too young to be dropped."""
        tokens, next_token = _forget_tokens(db, now)
        kept_rows, kept_size = db.execute("SELECT rows, size FROM tally WHERE function_id = 0").fetchone() or (0, 0)
        if kept_rows > rows or kept_size > size:
            walk = Walk(drop=[], kept_rows=kept_rows, kept_size=kept_size, reached=self._capped_to)
            _walk_by_caps(db, walk, rows, size)
            from_middle, self._capped_to = self._capped_to > 0, 0 if walk.complete else walk.reached
            if from_middle:
                walk.complete = False  # more may have ended in front
        else:
            walk = Walk(drop=[], kept_rows=kept_rows, kept_size=kept_size, reached=self._aged_to)
            _walk_by_age(db, walk, now - age)
            self._aged_to = 0 if walk.complete else walk.reached
        _drop(db, walk)
        crowded = _give_back(db)
        due = min(walk.oldest + age, next_token)
        return Purged(
            request_ids=tuple(self._identity.request_id(key) for key in walk.drop),
            more=not walk.complete or tokens or crowded,
            over=walk.kept_rows > rows or walk.kept_size > size,
            next_due=None if due == math.inf else due,
        )


def _walk_by_age(db: sqlite3.Connection, walk: Walk, cutoff: float) -> None:
    for key, ended, size, owes in _rows_behind(db, walk):
        if key > key_at(cutoff):
            walk.complete = True  # nothing behind can have ended earlier than it was accepted
            walk.oldest = min(walk.oldest, accepted_at(key))
            return
        walk.reached = key
        if ended is None:
            continue
        if ended > cutoff or owes:
            walk.oldest = min(walk.oldest, ended)
        elif _take(walk, key, size):
            return


def _walk_by_caps(db: sqlite3.Connection, walk: Walk, rows: int, size: int) -> None:
    for key, ended, row_size, owes in _rows_behind(db, walk):
        if walk.kept_rows <= rows and walk.kept_size <= size:
            walk.complete = False  # the ages are still to be looked at
            return
        walk.reached = key
        if ended is not None and not owes and _take(walk, key, row_size):
            return


def _rows_behind(db: sqlite3.Connection, walk: Walk) -> list[tuple[int, float | None, int, int]]:
    """The next rows: key, when it ended, bytes, whether it is owed to a destination."""
    found = db.execute(
        "SELECT key, ended, size + coalesce((SELECT length(body) + length(log) FROM result WHERE key = i.key), 0),"
        " EXISTS (SELECT 1 FROM owed WHERE key = i.key AND due IS NOT NULL)"
        " FROM invocation i WHERE key > ? ORDER BY key LIMIT ?",
        (walk.reached, STEP_ROWS),
    ).fetchall()
    walk.complete = len(found) < STEP_ROWS
    return found


def _take(walk: Walk, key: int, size: int) -> bool:
    """To be dropped; True if that is enough for one step."""
    walk.drop.append(key)
    walk.kept_rows -= 1
    walk.kept_size -= size
    walk.dropped_size += size
    if walk.dropped_size > STEP_SIZE:
        walk.complete = False
    return walk.dropped_size > STEP_SIZE


def _drop(db: sqlite3.Connection, walk: Walk) -> None:
    keys: Sequence[tuple[int]] = [(key,) for key in walk.drop]
    if not keys:
        return
    for table in ("invocation", "payload", "result", "attempt", "owed"):
        db.executemany(f"DELETE FROM {table} WHERE key = ?", keys)
    db.execute(SQL[Statement.TALLY], (0, -len(keys), 0))
    db.execute("UPDATE tally SET size = max(0, ?) WHERE function_id = 0", (walk.kept_size,))


def _forget_tokens(db: sqlite3.Connection, now: float) -> tuple[bool, float]:
    """Whether more are due, and when the next will be."""
    gone = db.execute(
        "DELETE FROM idempotency WHERE (function_id, token) IN"
        " (SELECT function_id, token FROM idempotency WHERE expires <= ? LIMIT ?)",
        (now, STEP_TOKENS),
    ).rowcount
    [next_token] = db.execute("SELECT min(expires) FROM idempotency").fetchone()
    return gone == STEP_TOKENS, math.inf if next_token is None else next_token


def _give_back(db: sqlite3.Connection) -> bool:
    """Shorten the file, so that the disk shows the room; whether there is more to give back."""
    [free] = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(max(0, free - FREE_PAGES), STEP_PAGES)):
        db.execute("PRAGMA incremental_vacuum(1)")  # Python makes one step of it, which frees one page
    return bool(free - STEP_PAGES > FREE_PAGES)
