"""End of many waiting invocations in one transaction on the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.protocols import WaitingEnd
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.invocation_writes import cancel


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
