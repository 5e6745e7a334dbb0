"""Functions and their asynchronous settings on disk, as JSON bodies. Fields used in queries have columns too."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from engine.errors import StoredDataUnreadable
from engine.model import AsyncSettings, Function
from engine.protocols import StoredResource
from engine.storage.sqlite.resource_store import PUT_RESOURCE, resource_row
from engine.storage.sqlite.writer import Writer

T = TypeVar("T", bound=Struct)

_PUT_SETTINGS = "INSERT OR REPLACE INTO async_settings (function_id, version, body) VALUES (?,?,?)"


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
        others = [resource_row(resource) for resource in resources]

        def write(db: sqlite3.Connection) -> None:
            for function, body in rows:
                _put_function(db, function, body)
            db.executemany(PUT_RESOURCE, others)

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
            for key in keys:
                db.execute("DELETE FROM resource WHERE kind = ? AND owner = ? AND id = ?", key)

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
        await self._writer.call(
            lambda db: (
                db.execute(
                    "DELETE FROM async_settings WHERE function_id = ? AND version = ?", (function_id, version)
                ).rowcount
            )
        )


def _put_function(db: sqlite3.Connection, function: Function, body: bytes) -> None:
    db.execute(
        "INSERT OR REPLACE INTO function (function_id, project, package, name) VALUES (?,?,?,?)",
        (function.function_id, function.project, function.package, function.name),
    )
    db.execute(
        "INSERT OR REPLACE INTO function_version (function_id, version, body) VALUES (?,?,?)",
        (function.function_id, function.version, body),
    )


def _load(db: sqlite3.Connection) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
    functions = [
        _decoded(body, Function, f"version {version} of function {function_id}")
        for function_id, version, body in db.execute("SELECT function_id, version, body FROM function_version")
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
