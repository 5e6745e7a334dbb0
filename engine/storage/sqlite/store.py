"""Durable tables of a plugin, stored as rows with the key (plugin, table, key). Also read through the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Never

from engine.errors import StoredDataUnreadable
from engine.storage.sqlite.writer import Writer

#: Text that sorts after every key.
_END = "\U0010ffff" * 2


class SQLiteStore:
    def __init__(self, writer: Writer, plugin: str) -> None:
        self._writer, self._plugin = writer, plugin

    def _unreadable(self, db: sqlite3.Connection) -> Never:
        """Raise the error for a read that met a damaged page."""
        raise StoredDataUnreadable(f"a row of the plugin {self._plugin}", "its page in the journal is damaged")

    async def get(self, table: str, key: str) -> bytes | None:
        row_key = (self._plugin, table, key)
        return await self._writer.call(lambda db: _get(db, row_key), self._unreadable)

    async def scan(
        self, table: str, *, after: str = "", until: str = "", limit: int = 1000, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        order = "DESC" if newest else "ASC"
        sql = (
            "SELECT key, value FROM plugin_row WHERE plugin = ? AND name = ? AND key > ? AND key < ?"
            f" ORDER BY key {order} LIMIT ?"
        )
        values = (self._plugin, table, after, until or _END, limit)
        return await self._writer.call(
            lambda db: [(key, bytes(value)) for key, value in db.execute(sql, values)], self._unreadable
        )

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        rows = [(self._plugin, table, key, value) for key, value in (put or {}).items()]
        deleted = [(self._plugin, table, key) for key in delete]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?", deleted)
            db.executemany("INSERT OR REPLACE INTO plugin_row (plugin, name, key, value) VALUES (?,?,?,?)", rows)

        await self._writer.call(write)

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        sql = (
            "DELETE FROM plugin_row WHERE plugin = ?1 AND name = ?2 AND key IN (SELECT key FROM plugin_row"
            " WHERE plugin = ?1 AND name = ?2 AND key > ?3 AND key < ?4 ORDER BY key LIMIT ?5)"
        )
        values = (self._plugin, table, after, until, limit)
        return await self._writer.call(lambda db: db.execute(sql, values).rowcount)


def _get(db: sqlite3.Connection, row_key: tuple[str, str, str]) -> bytes | None:
    row = db.execute("SELECT value FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?", row_key).fetchone()
    return None if row is None else bytes(row[0])
