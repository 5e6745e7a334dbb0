"""What destinations have not confirmed yet: owed with the end of an invocation, in the same commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.journal.invocations import append_rows, insert
from engine.journal.writer import Writer
from engine.model import DestinationSpec, Invocation, Owed


class SQLiteOutbox:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def owed(self, now: float, rows: int) -> tuple[Sequence[Owed], float | None]:
        return await self._writer.call(lambda db: _owed(db, now, rows))

    async def delivered(self, owed: Owed, append: Invocation | None = None) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM owed WHERE owed_id = ?", (owed.owed_id,))
            if append is not None:
                insert(db, append_rows(append))

        await self._writer.call(write)

    async def postpone(self, owed: Owed, due_at: float | None, error: str) -> None:
        await self._writer.call(
            lambda db: (
                db.execute(
                    "UPDATE owed SET due = ?, tries = tries + 1, error = ? WHERE owed_id = ?",
                    (due_at, error, owed.owed_id),
                ).rowcount
            )
        )


def _owed(db: sqlite3.Connection, now: float, rows: int) -> tuple[Sequence[Owed], float | None]:
    found = db.execute(
        "SELECT owed_id, key, function_id, condition, destination, param, due, tries, error FROM owed"
        " WHERE due <= ? ORDER BY due LIMIT ?",
        (now, rows),
    ).fetchall()
    later = db.execute("SELECT min(due) FROM owed WHERE due > ?", (now,)).fetchone()[0]
    return [_to_owed(*row) for row in found], later


def _to_owed(
    owed_id: int,
    key: int,
    function_id: int,
    condition: str,
    destination: str,
    param: str,
    due: float,
    tries: int,
    error: str,
) -> Owed:
    return Owed(
        owed_id=owed_id,
        key=key,
        function_id=function_id,
        condition=condition,
        destination=DestinationSpec(destination=destination, param=param),
        due_at=due,
        tries=tries,
        error=error,
    )
