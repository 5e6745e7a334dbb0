"""Rows of a damaged database, read from its pages without SQLite. Nothing is written.

Trees of tables and indexes are walked from their roots. Pages behind an unreadable one are found by the pointer map, in
which ``auto_vacuum`` keeps the parent of each page. The map also tells free pages, whose rows are stale.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import finalize

from msgspec import Struct

from engine.storage.sqlite.wal import PAGE, LogPages

_MAGIC = b"SQLite format 3\0\x10\0"  #: with the size of a page
_ROOT, _FREE, _OVERFLOW, _MORE_OVERFLOW, _CHILD = range(1, 6)  #: types of pages in the pointer map
_TABLE, _INDEX = (5, 13), (2, 10)  #: types of inner pages and leaves
_ENTRIES = PAGE // 5  #: in each page of the pointer map
_MOST = {_TABLE: PAGE - 35, _INDEX: (PAGE - 12) * 64 // 255 - 23}  #: bytes of the longest row without overflow pages
_LEAST = (PAGE - 12) * 32 // 255 - 23  #: bytes of a longer row that its page has at least
_NUMBERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}  #: bytes of a number, by its type

Row = list[Any]


class _Unreadable(Exception):
    """Page or cell whose content cannot be that of its tree."""


class Place(Struct, frozen=True):
    """Page in a tree, with rows behind ``after`` and up to ``until``. None: no bound. The parent of a root is 0."""

    page: int
    parent: int = 0
    after: Row | None = None
    until: Row | None = None


class Pages:
    """Pages of a database file with its write-ahead log. ``on_page`` gets the pages read so far, and all."""

    def __init__(self, path: Path, on_page: Callable[[int, int], None]) -> None:
        self._file, self.log = os.open(path, os.O_RDONLY | os.O_CLOEXEC), LogPages(Path(f"{path}-wal"))
        finalize(self, os.close, self._file)
        self.count = self.log.count or -(-path.stat().st_size // PAGE)
        self._on_page, self._read = on_page, 0
        first = self._content(1, b"")
        self.header = first[:100] if first.startswith(_MAGIC) else b""  #: empty if it is lost
        self._kinds, self._parents = array("B", bytes(self.count + 1)), array("I", bytes(4 * self.count + 4))
        for at in range(2, self.count + 1, _ENTRIES + 1) if self.header[52:56] != bytes(4) else ():
            entries = struct.iter_unpack(">BI", self._content(at, b"")[: 5 * _ENTRIES])
            for page, (kind, parent) in zip(range(at + 1, self.count + 1), entries, strict=False):
                if parent == 0 if kind in (_ROOT, _FREE) else _FREE < kind <= _CHILD and 0 < parent <= self.count:
                    self._kinds[page], self._parents[page] = kind, parent

    def roots(self) -> list[int]:
        """Return the roots of all trees that the pointer map has."""
        return [page for page, kind in enumerate(self._kinds) if kind == _ROOT]

    def rows(self, root: int, numbered: bool, lost: list[Place]) -> Iterator[Row]:
        """Yield the rows of a table or the entries of an index. At the end, add pages whose rows are lost to ``lost``.

        Tables with ``numbered`` rows have another format. Their key, which is the number, is the first value.
        """
        kinds, places, seen = _TABLE if numbered else _INDEX, [Place(root)], {root}
        unsound, answered = dict[int, Place](), set[int]()
        while places:
            while places:
                place = places.pop()
                try:
                    children, sound = yield from self._rows_of(place, kinds)
                except _Unreadable:
                    children, sound = [], False
                if not sound:
                    unsound[place.page] = place
                places += [child for child in children if child.page not in seen]
                seen.update(child.page for child in children)
            for page, parent in enumerate(self._parents if unsound else ()):
                if parent in unsound and self._kinds[page] == _CHILD and page not in seen:
                    places.append(Place(page, parent, unsound[parent].after, unsound[parent].until))
                    seen.add(page)
                    answered.update({parent} if numbered else ())  # an inner page of an index has rows of its own
        lost += [place for place in unsound.values() if place.page not in answered]

    def _content(self, page: int, default: bytes | None = None) -> bytes:
        content = self.log.content(page)
        if content is None and 1 <= page <= self.count:
            with suppress(OSError):
                content = os.pread(self._file, PAGE, (page - 1) * PAGE)
        if content is None or len(content) < PAGE:
            if default is None:
                raise _Unreadable
            return default
        return content

    def _is(self, page: int, kind: int, parent: int) -> bool:
        """Return whether the pointer map tells this of a page, or nothing that can be true."""
        if page == 1 or page > self.count:
            return page == 1
        return not self._kinds[page] or (self._kinds[page], self._parents[page]) == (kind, parent)

    def _rows_of(self, place: Place, kinds: tuple[int, int]) -> Generator[Row, None, tuple[list[Place], bool]]:
        """Yield the rows of a page. Return the pages below it, and whether all of the page could be read."""
        content, start = self._content(place.page), 100 if place.page == 1 else 0
        self._read += 1
        self._on_page(self._read, max(self._read, self.count))
        kind, number = content[start], int.from_bytes(content[start + 3 : start + 5], "big")
        inner = kind == kinds[0]
        first = start + (12 if inner else 8)
        if kind not in kinds or first + 2 * number > PAGE or not self._is(place.page, *_entry(place)):
            raise _Unreadable
        children, sound, after = list[Place](), True, place.after
        for at in struct.unpack_from(f">{number}H", content, first):
            try:
                if inner and kinds is _TABLE:
                    row = [_varint(content, at + 4)[0]]
                else:
                    row = self._row(content, at + 4 * inner, kinds, place.page)
                    yield row
            except (_Unreadable, IndexError, KeyError, struct.error, ValueError):
                sound = False
                continue
            if inner:
                children.append(Place(int.from_bytes(content[at : at + 4], "big"), place.page, after, row))
                after = row
        if inner:
            last = int.from_bytes(content[start + 8 : start + 12], "big")
            children.append(Place(last, place.page, after, place.until))
        known = [child for child in children if self._is(child.page, *_entry(child))]
        return known, sound and len(known) == len(children)

    def _row(self, content: bytes, at: int, kinds: tuple[int, int], page: int) -> Row:
        size, at = _varint(content, at)
        key, at = _varint(content, at) if kinds is _TABLE else (0, at)
        if size <= _MOST[kinds]:
            row = _decoded(content[at : at + size], size)
        else:
            local = _LEAST + (size - _LEAST) % (PAGE - 4)
            local = local if local <= _MOST[kinds] else _LEAST
            parts, left = [content[at : at + local]], size - local
            parent, kind, next_page = page, _OVERFLOW, content[at + local : at + local + 4]
            while left > 0:
                page = int.from_bytes(next_page, "big")
                if not self._is(page, kind, parent):
                    raise _Unreadable
                content = self._content(page)
                parts.append(content[4 : 4 + left])
                parent, kind, next_page = page, _MORE_OVERFLOW, content[:4]
                left -= PAGE - 4
            row = _decoded(b"".join(parts), size)
        if kinds is _TABLE and row[0] is None:
            row[0] = key
        return row


def _entry(place: Place) -> tuple[int, int]:
    return (_CHILD, place.parent) if place.parent else (_ROOT, 0)


def _decoded(record: bytes, size: int) -> Row:
    """Return the values of a row, which a header with the types precedes."""
    header, at = _varint(record, 0)
    row, begin = list[Any](), header
    while at < header:
        kind, at = (record[at], at + 1) if record[at] < 0x80 else _varint(record, at)
        end = begin + (_NUMBERS[kind] if kind < 12 else (kind - 12) // 2)
        value: Any = record[begin:end]
        if kind == 7:
            [value] = struct.unpack(">d", value)
        elif kind < 10:
            value = None if kind == 0 else kind - 8 if kind >= 8 else int.from_bytes(value, "big", signed=True)
        elif kind % 2:
            value = value.decode()
        row.append(value)
        begin = end
    if begin != size or len(record) != size:
        raise _Unreadable
    return row


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and the position behind it."""
    value = 0
    for position in range(at, at + 8):
        byte = content[position]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + 1
    value = value << 8 | content[at + 8]
    return value - (value >> 63 << 64), at + 9
