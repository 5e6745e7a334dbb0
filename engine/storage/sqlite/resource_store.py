"""Aliases, triggers and other resources on disk, as JSON bodies with the key (kind, owner, id)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.protocols import StoredResource
from engine.storage.sqlite.writer import Writer

PUT_RESOURCE = "INSERT OR REPLACE INTO resource (kind, owner, id, body) VALUES (?,?,?,?)"


class SQLiteResourceStore:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def load(self, kind: str) -> Sequence[StoredResource]:
        return await self._writer.call(lambda db: _load(db, kind))

    async def put(self, resource: StoredResource) -> None:
        row = resource_row(resource)
        await self._writer.call(lambda db: db.execute(PUT_RESOURCE, row).rowcount)

    async def delete(self, kind: str, owner: str, id: str) -> None:
        row = (kind, owner, id)
        await self._writer.call(
            lambda db: db.execute("DELETE FROM resource WHERE kind = ? AND owner = ? AND id = ?", row).rowcount
        )


def resource_row(resource: StoredResource) -> tuple[str, str, str, bytes]:
    """Return the parameters of ``PUT_RESOURCE`` that store the resource."""
    return resource.kind, resource.owner, resource.id, resource.body


def _load(db: sqlite3.Connection, kind: str) -> Sequence[StoredResource]:
    rows = db.execute("SELECT owner, id, body FROM resource WHERE kind = ? ORDER BY owner, id", (kind,))
    return [StoredResource(kind=kind, owner=owner, id=id, body=body) for owner, id, body in rows]
