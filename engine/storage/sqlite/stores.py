"""Functions, resources, and the tables of plugins on disk. Functions, settings and resources are JSON bodies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from engine.errors import StoredDataUnreadable
from engine.model import AsyncSettings, Function
from engine.protocols import StoredResource
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.writer import Writer

T = TypeVar("T", bound=Struct)

_PUT_RESOURCE = "INSERT OR REPLACE INTO resource (kind, owner, id, body) VALUES (?1, ?2, ?3, encrypted(?1, ?2, ?3, ?4))"
_DELETE_RESOURCE = "DELETE FROM resource WHERE kind = ? AND owner = ? AND id = ?"
_VERSIONS = "SELECT function_id, version, decrypted('function', function_id, version, body) FROM function_version"
_PUT_SETTINGS = "INSERT OR REPLACE INTO async_settings (function_id, version, body) VALUES (?,?,?)"
_END = "\U0010ffff" * 2  #: sorts after every key of a plugin
_RANGE = "FROM plugin_row WHERE plugin = ? AND name = ? AND key > ? AND key < ? ORDER BY key"


class SQLiteResourceStore:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def load(self, kind: str) -> Sequence[StoredResource]:
        sql = "SELECT owner, id, decrypted(kind, owner, id, body) FROM resource WHERE kind = ? ORDER BY owner, id"
        rows = await self._writer.call(lambda db: db.execute(sql, (kind,)).fetchall())
        return [StoredResource(kind=kind, owner=owner, id=id, body=body) for owner, id, body in rows]

    async def put(self, resource: StoredResource) -> None:
        row = _resource_row(resource)
        await self._writer.call(lambda db: db.execute(_PUT_RESOURCE, row).rowcount)

    async def delete(self, kind: str, owner: str, id: str) -> None:
        await self._writer.call(lambda db: db.execute(_DELETE_RESOURCE, (kind, owner, id)).rowcount)


class SQLiteCatalogStore:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        return await self._writer.call(_load)

    async def new_function_id(self) -> int:
        def draw(db: sqlite3.Connection) -> int:
            db.execute("INSERT INTO function (project, package, name) VALUES ('', '', '')")
            number: int = db.execute("SELECT last_insert_rowid()").fetchone()[0]
            db.execute("DELETE FROM function WHERE function_id = ?", (number,))
            return number

        return await self._writer.call(draw)

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        rows = [(function, msgspec.json.encode(function)) for function in functions]
        others = [_resource_row(resource) for resource in resources]

        def write(db: sqlite3.Connection) -> None:
            for function, body in rows:
                _put_function(db, function, body)
            db.executemany(_PUT_RESOURCE, others)

        await self._writer.call(write)

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        body = msgspec.json.encode(version)
        row = (version.function_id, version.version, msgspec.json.encode(settings)) if settings else None

        def write(db: sqlite3.Connection) -> None:
            _put_function(db, version, body)
            if row is not None:
                db.execute(_PUT_SETTINGS, row)

        await self._writer.call(write)

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        keys = [(resource.kind, resource.owner, resource.id) for resource in bound]

        def write(db: sqlite3.Connection) -> None:
            for table in ("function_version", "async_settings"):
                db.execute(f"DELETE FROM {table} WHERE function_id = ? AND version = ?", (function_id, version))
            db.executemany(_DELETE_RESOURCE, keys)

        await self._writer.call(write)

    async def delete_function(self, function_id: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            for table in ("function", "function_version", "async_settings"):
                db.execute(f"DELETE FROM {table} WHERE function_id = ?", (function_id,))
            db.execute("DELETE FROM resource WHERE owner = ?", (f"function:{function_id}",))

        await self._writer.call(write)

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        row = (function_id, version, msgspec.json.encode(settings))
        await self._writer.call(lambda db: db.execute(_PUT_SETTINGS, row).rowcount)

    async def delete_settings(self, function_id: int, version: str) -> None:
        sql = "DELETE FROM async_settings WHERE function_id = ? AND version = ?"
        await self._writer.call(lambda db: db.execute(sql, (function_id, version)).rowcount)


def _resource_row(resource: StoredResource) -> tuple[str, str, str, bytes]:
    return resource.kind, resource.owner, resource.id, resource.body


def _put_function(db: sqlite3.Connection, function: Function, body: bytes) -> None:
    db.execute(
        "INSERT OR REPLACE INTO function (function_id, project, package, name) VALUES (?,?,?,?)",
        (function.function_id, function.project, function.package, function.name),
    )
    db.execute(
        "INSERT OR REPLACE INTO function_version (function_id, version, body)"
        " VALUES (?1, ?2, encrypted('function', ?1, ?2, ?3))",
        (function.function_id, function.version, body),
    )


def _load(db: sqlite3.Connection) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
    functions = [
        _decoded(body, Function, f"version {version} of function {function_id}")
        for function_id, version, body in db.execute(_VERSIONS)
    ]
    settings = {
        (function_id, version): _decoded(
            body, AsyncSettings, f"the settings of version {version} of function {function_id}"
        )
        for function_id, version, body in db.execute("SELECT function_id, version, body FROM async_settings")
    }
    return functions, settings


def _decoded(body: bytes, type: type[T], place: str) -> T:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise StoredDataUnreadable(place, str(error)) from error


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
