"""Order of invocations with an ordering key: at most one of a key is not held, and its end releases the next.

All functions run in the writer's thread, inside the transaction that stores or ends the invocations. No state is in
memory, so an engine that takes over finds the order as it is on disk.

A released row becomes delayed. If it was accepted with a delay, its due time stays, otherwise it is due now.
``Window.promote`` then makes the row ready like any other, so that a damaged payload of one invocation never prevents
the end of another. The journal announces each end by ``released``, upon which the scheduler looks for due rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from engine.model import Invocation
from engine.storage.sqlite.batch import SQL, Statement, insert_rows, with_sums
from engine.storage.sqlite.rows import HELD, append_row, rare_row

#: Statement that returns a row if another invocation of the key has not ended.
_UNENDED = (
    "SELECT 1 FROM invocation INDEXED BY ordering WHERE function_id = ? AND ordering_key = ? AND state < 3 LIMIT 1"
)
#: Statement that returns the key of the invocation right before a held one, which may be held too.
PREDECESSOR = (
    "SELECT coalesce((SELECT max(key) FROM invocation INDEXED BY ordering WHERE function_id = i.function_id"
    " AND ordering_key = i.ordering_key AND state = -1 AND state < 3 AND key < i.key),"
    " (SELECT max(key) FROM invocation INDEXED BY ordering WHERE function_id = i.function_id"
    " AND ordering_key = i.ordering_key AND state >= 0 AND state < 3)) FROM invocation i WHERE key = ? AND state = -1"
)


def insert_ordered(db: sqlite3.Connection, invocation: Invocation) -> bool:
    """Store the row of an invocation with an ordering key. Return True if it is held behind another."""
    key = invocation.function_id, invocation.ordering_key
    held = db.execute(_UNENDED, key).fetchone() is not None
    state, *row = append_row(invocation)
    insert_rows(db, Statement.APPEND, [(HELD if held else state, *row)])
    db.executemany(SQL[Statement.RARE], with_sums(Statement.RARE, [rare_row(invocation) or ()]))
    return held


def release_successors(db: sqlite3.Connection, keys: Iterable[tuple[int, str]], now: float) -> None:
    """Release the next invocation of each (function id, ordering key) of which none is ready, delayed or running.

    Each transaction that ends invocations with ordering keys calls this after their ends. Only the discarding of a
    deleted function does not, because its held invocations end too. After the commit, call ``released`` of the journal.
    A key with nothing to release does no harm, nor does a second call.
    """
    db.executemany(SQL[Statement.RELEASE], [(*key, now) for key in keys])
