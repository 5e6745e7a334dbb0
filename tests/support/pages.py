"""Pages of a closed SQLite file: finds those of a table or index, and damages them as a bad disk would."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from msgspec import Struct

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13


class Page(Struct, frozen=True):
    """Page of a B-tree. ``keys`` are those of the rows on a leaf of a table; empty for other pages."""

    number: int
    kind: int
    keys: tuple[int, ...] = ()

    @property
    def is_leaf(self) -> bool:
        return self.kind in (_LEAF_INDEX, _LEAF_TABLE)


class PageFile:
    """Database file that no process has open and that has no write-ahead log."""

    def __init__(self, path: Path) -> None:
        assert not Path(f"{path}-wal").exists()
        self._path, self._content = path, path.read_bytes()
        self._size = int.from_bytes(self._content[16:18], "big")
        with closing(sqlite3.connect(path)) as database:
            self._roots = dict(database.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))

    def pages(self, name: str) -> list[Page]:
        """Return all pages of a table or index except overflow pages, in the order of their rows."""
        return list(self._pages(self._roots[name]))

    def leaf(self, name: str, key: int) -> Page:
        """Return the leaf of a table that has the row with this key."""
        [found] = [page for page in self.pages(name) if key in page.keys]
        return found

    def smash(self, page: Page) -> None:
        """Overwrite the beginning of a page, so that it cannot be read any more."""
        at = (page.number - 1) * self._size + (100 if page.number == 1 else 0)
        self._write(at, b"\xee" * 32)

    def replace(self, old: bytes, new: bytes) -> None:
        """Replace bytes that occur once in the file by as many others."""
        assert len(old) == len(new)
        assert self._content.count(old) == 1, f"{self._content.count(old)} times: {old!r}"
        self._write(self._content.index(old), new)

    def _write(self, at: int, new: bytes) -> None:
        with self._path.open("r+b") as file:
            file.seek(at)
            file.write(new)

    def _pages(self, number: int) -> Iterator[Page]:
        page = self._content[(number - 1) * self._size : number * self._size]
        start = 100 if number == 1 else 0
        kind = page[start]
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        first = start + (12 if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else 8)
        cells = [int.from_bytes(page[first + 2 * i : first + 2 * i + 2], "big") for i in range(count)]
        if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE):
            yield Page(number, kind)
            children = [int.from_bytes(page[cell : cell + 4], "big") for cell in cells]
            for child in (*children, int.from_bytes(page[start + 8 : start + 12], "big")):
                yield from self._pages(child)
        else:
            assert kind in (_LEAF_INDEX, _LEAF_TABLE), kind
            yield Page(number, kind, tuple(_key(page, cell) for cell in cells) if kind == _LEAF_TABLE else ())


def _key(page: bytes, cell: int) -> int:
    """Return the key of a row: the second number of its cell, after the size of the row."""
    _, at = _number(page, cell)
    return _number(page, at)[0]


def _number(page: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and the position behind it."""
    value = 0
    for read in range(8):
        byte = page[at + read]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + read + 1
    return value << 8 | page[at + 8], at + 9
