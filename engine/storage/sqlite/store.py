"""Durable tables of a plugin, stored as rows with the key (plugin, table, key). Also read through the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.writer import Writer

#: Text that sorts after every key.
_END = "\U0010ffff" * 2
_RANGE = "FROM plugin_row WHERE plugin = ? AND name = ? AND key > ? AND key < ? ORDER BY key"


class SQLiteStore:
    def __init__(self, writer: Writer, plugin: str, damage: Damage) -> None:
        self._writer, self._plugin, self._damage = writer, plugin, damage

    async def get(self, table: str, key: str) -> bytes | None:
        sql = "SELECT value FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?"
        row = await self._writer.call(lambda db: db.execute(sql, (self._plugin, table, key)).fetchone())
        return None if row is None else bytes(row[0])

    async def scan(
        self, table: str, *, after: str = "", until: str = "", limit: int = 1000, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        sql = f"SELECT key, value {_RANGE} {'DESC' if newest else 'ASC'} LIMIT ?"
        values = (self._plugin, table, after, until or _END, limit)
        return await self._writer.call(lambda db: [(key, bytes(value)) for key, value in db.execute(sql, values)])

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        deleted = [(self._plugin, table, key) for key in delete]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?", deleted)
            put_rows(db, self._plugin, table, put or {})

        await self._writer.call(write)

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        if self._damage.first:
            return 0
        sql = f"DELETE FROM plugin_row WHERE plugin = ? AND name = ? AND key IN (SELECT key {_RANGE} LIMIT ?)"
        values = (self._plugin, table, self._plugin, table, after, until, limit)
        return await self._writer.call(lambda db: db.execute(sql, values).rowcount)


def put_rows(db: sqlite3.Connection, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
    rows = [(plugin, table, key, value) for key, value in put.items()]
    db.executemany("INSERT OR REPLACE INTO plugin_row (plugin, name, key, value) VALUES (?,?,?,?)", rows)
