"""Functions and their asynchronous settings on disk, as JSON bodies beside the keys that matter."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from engine.journal.writer import Writer
from engine.model import AsyncSettings, Function


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

    async def put_function(self, function: Function) -> None:
        f, body = function, msgspec.json.encode(function)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO function (function_id, project, package, name) VALUES (?,?,?,?)",
                (f.function_id, f.project, f.package, f.name),
            )
            db.execute(
                "INSERT OR REPLACE INTO function_version (function_id, version, body) VALUES (?,?,?)",
                (f.function_id, f.version, body),
            )

        await self._writer.call(write)

    async def delete_function(self, function_id: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            for table in ("function", "function_version", "async_settings"):
                db.execute(f"DELETE FROM {table} WHERE function_id = ?", (function_id,))
            db.execute("DELETE FROM resource WHERE owner = ?", (f"function:{function_id}",))

        await self._writer.call(write)

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        row = (function_id, version, msgspec.json.encode(settings))
        await self._writer.call(
            lambda db: (
                db.execute(
                    "INSERT OR REPLACE INTO async_settings (function_id, version, body) VALUES (?,?,?)", row
                ).rowcount
            )
        )

    async def delete_settings(self, function_id: int, version: str) -> None:
        await self._writer.call(
            lambda db: (
                db.execute(
                    "DELETE FROM async_settings WHERE function_id = ? AND version = ?", (function_id, version)
                ).rowcount
            )
        )


def _load(db: sqlite3.Connection) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
    functions = [
        msgspec.json.decode(body, type=Function) for (body,) in db.execute("SELECT body FROM function_version")
    ]
    settings = {
        (function_id, version): msgspec.json.decode(body, type=AsyncSettings)
        for function_id, version, body in db.execute("SELECT function_id, version, body FROM async_settings")
    }
    return functions, settings
