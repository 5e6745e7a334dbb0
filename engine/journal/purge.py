"""Dropping what is finished, and what it leaves behind, in steps of a few milliseconds of the writer's time."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from engine.identity import Identity, accepted_at, key_at
from engine.journal.batch import SQL, Statement
from engine.protocols import Purged

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
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._purged_to = 0  #: everything below was looked at in this round

    def step(self, db: sqlite3.Connection, now: float, age: float, rows: int, size: int) -> Purged:
        """Walks in the order of acceptance, and begins anew when it reaches rows too young to be dropped."""
        tokens, next_token = _forget_tokens(db, now)
        walk = self._walk(db, now - age, rows, size)
        _drop(db, walk)
        self._purged_to = 0 if walk.complete else walk.reached
        crowded = _give_back(db)
        due = min(walk.oldest + age, next_token)
        return Purged(
            request_ids=tuple(self._identity.request_id(key) for key in walk.drop),
            more=not walk.complete or tokens or crowded,
            over=walk.kept_rows > rows or walk.kept_size > size,
            next_due=None if due == math.inf else due,
        )

    def _walk(self, db: sqlite3.Connection, cutoff: float, rows: int, size: int) -> Walk:
        kept = db.execute("SELECT rows, size FROM tally WHERE function_id = 0").fetchone() or (0, 0)
        walk = Walk(drop=[], kept_rows=kept[0], kept_size=kept[1], reached=self._purged_to)
        found = db.execute(
            "SELECT key, state, ended, size, (SELECT length(body) + length(log) FROM result WHERE key = i.key),"
            " EXISTS (SELECT 1 FROM owed WHERE key = i.key AND due IS NOT NULL)"
            " FROM invocation i WHERE key > ? ORDER BY key LIMIT ?",
            (self._purged_to, STEP_ROWS),
        ).fetchall()
        walk.complete = len(found) < STEP_ROWS
        for key, state, ended, payload, result, owes in found:
            over = walk.kept_rows > rows or walk.kept_size > size
            if not over and key > key_at(cutoff):
                walk.complete = True  # nothing behind can have ended earlier than it was accepted
                walk.oldest = min(walk.oldest, accepted_at(key))
                break
            walk.reached = key
            if state >= 3 and not owes and (over or ended <= cutoff):
                _take(walk, key, payload + (result or 0))
                if walk.dropped_size > STEP_SIZE:
                    walk.complete = False
                    break
            elif state >= 3:
                walk.oldest = min(walk.oldest, ended)
        return walk


def _take(walk: Walk, key: int, size: int) -> None:
    walk.drop.append(key)
    walk.kept_rows -= 1
    walk.kept_size -= size
    walk.dropped_size += size


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
