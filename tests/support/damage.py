"""Data directories with invocations, whose pages tests damage."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.errors import DataDirectoryUnusable
from engine.model import Invocation
from engine.storage import StorageOptions
from engine.storage.sqlite.database import SQLiteStorage, open_storage
from tests.support.pages import Page, PageFile
from tests.support.storages import BEGINNING, NOW, ROOM, made

ROWS = 160  #: enough for several pages of each table


def storing(folder: Path) -> Any:
    return open_storage(StorageOptions(directory=folder))


async def refusal(folder: Path) -> str:
    """Return the words with which a start on a data directory is refused."""
    with pytest.raises(DataDirectoryUnusable) as refused:
        async with storing(folder):
            pass
    return str(refused.value)


class StoredRows(Struct):
    """Data directory with invocations, of functions 1 and 2 in turn."""

    folder: Path
    invocations: list[Invocation]

    @property
    def file(self) -> PageFile:
        return PageFile(self.folder / "journal.db")

    def smash(self, name: str, leaf: int = 1) -> tuple[int, ...]:
        """Damage one page that has rows of the table, or entries of the index. Return the keys of its rows."""
        page = [page for page in self.file.pages(name) if page.is_leaf][leaf]
        self.file.smash(page)
        return page.keys

    def leaves(self, name: str) -> list[Page]:
        return [page for page in self.file.pages(name) if page.is_leaf]

    def keys(self, function_id: int, without: tuple[int, ...] = ()) -> list[int]:
        return [i.key for i in self.invocations if i.function_id == function_id and i.key not in without]


async def kept(folder: Path, number: int = ROWS, **fields: Any) -> StoredRows:
    async with storing(folder) as storage:
        fields = {"payload": b"%0200d" % 7, "at": NOW, **fields}
        invocations = [made(storage, 1 + index % 2, **fields) for index in range(number)]
        await asyncio.gather(*(storage.journal.append(each) for each in invocations))
    return StoredRows(folder, invocations)


async def ready(storage: SQLiteStorage, function_id: int, rows: int = ROWS) -> list[int]:
    """Return the keys of all ready rows of a function, read page by page."""
    keys, after = list[int](), BEGINNING
    while True:
        page = await storage.window.ready(function_id, after, rows, ROOM)
        keys += [invocation.key for invocation in page.invocations]
        if page.complete:
            return keys
        after = page.invocations[-1].rank_key if page.invocations else after


def rows_of(folder: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        return database.execute(sql, values).fetchall()


def change(folder: Path, *statements: str) -> None:
    """Execute statements on the closed journal of a data directory."""
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
