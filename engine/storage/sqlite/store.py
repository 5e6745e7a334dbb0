"""Durable tables of a plugin, stored as rows with the key (plugin, table, key). Also read through the writer.

A damaged page stops only its own rows: a read of one of them is an error, unless the scan leaves them out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Never

from engine.errors import StoredDataUnreadable
from engine.storage.sqlite.damage import DamageNotes
from engine.storage.sqlite.salvage import store_each
from engine.storage.sqlite.store_scan import END, Range, StoreScans
from engine.storage.sqlite.writer import Writer

_DELETE = "DELETE FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?"


class SQLiteStore:
    def __init__(self, writer: Writer, plugin: str, notes: DamageNotes | None = None) -> None:
        self._writer, self._plugin = writer, plugin
        self._scans = StoreScans(notes or DamageNotes())

    async def get(self, table: str, key: str) -> bytes | None:
        row_key = (self._plugin, table, key)
        return await self._writer.call(
            lambda db: _get(db, row_key), lambda db: self._unreadable(f"the row {key}", table)
        )

    async def scan(
        self,
        table: str,
        *,
        after: str = "",
        until: str = "",
        limit: int = 1000,
        newest: bool = False,
        skip_damaged: bool = False,
    ) -> Sequence[tuple[str, bytes]]:
        wanted = self._range(table, after, until or END, newest)

        def scan_isolated(db: sqlite3.Connection) -> Sequence[tuple[str, bytes]]:
            readable = self._scans.scan(db, wanted, limit)
            return readable if skip_damaged else self._unreadable("a row", table)

        return await self._writer.call(lambda db: wanted.read(db, limit), scan_isolated)

    def _unreadable(self, row: str, table: str) -> Never:
        place = f"{row} of the plugin {self._plugin}, table {table},"
        raise StoredDataUnreadable(place, "its page in the journal is damaged")

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        deleted = [(self._plugin, table, key) for key in delete]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(_DELETE, deleted)
            put_rows(db, self._plugin, table, put or {})

        await self._writer.call(write)

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        sql = (
            "DELETE FROM plugin_row WHERE plugin = ?1 AND name = ?2 AND key IN (SELECT key FROM plugin_row"
            " WHERE plugin = ?1 AND name = ?2 AND key > ?3 AND key < ?4 ORDER BY key LIMIT ?5)"
        )
        values = (self._plugin, table, after, until, limit)
        wanted = self._range(table, after, until, newest=False)

        def purge_isolated(db: sqlite3.Connection) -> int:
            keys = [(self._plugin, table, key) for key, _ in self._scans.scan(db, wanted, limit)]
            return len(keys) - len(store_each(db, keys, lambda db, key: db.execute(_DELETE, key)))

        return await self._writer.call(lambda db: db.execute(sql, values).rowcount, purge_isolated)

    def _range(self, table: str, after: str, until: str, newest: bool) -> Range:
        return Range(plugin=self._plugin, table=table, after=after.encode(), until=until.encode(), newest=newest)


def put_rows(db: sqlite3.Connection, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
    rows = [(plugin, table, key, value) for key, value in put.items()]
    db.executemany("INSERT OR REPLACE INTO plugin_row (plugin, name, key, value) VALUES (?,?,?,?)", rows)


def _get(db: sqlite3.Connection, row_key: tuple[str, str, str]) -> bytes | None:
    row = db.execute("SELECT value FROM plugin_row WHERE plugin = ? AND name = ? AND key = ?", row_key).fetchone()
    return None if row is None else bytes(row[0])
