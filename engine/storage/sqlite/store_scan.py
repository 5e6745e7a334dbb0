"""Scans of a plugin's tables that go on behind damaged pages.

No index has the keys behind a damaged page, so the next readable row is searched by its key: with growing distance from
the last row that can be read, then by halving the last step. Keys are compared as bytes. The limits of the unreadable
rows are kept in memory, because a failing disk may take seconds for each read of a bad page.

Some rows are on inner pages, between two pages of rows. If one of these two is damaged, such a row is read from the
other one. If both are damaged, only ``SQLiteStore.get`` finds it. If several pages of a range are damaged, and its
first rows are among them, a readable page between them may be left out, if more damaged ones follow it than readable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.storage.sqlite.damage import DamageNotes, is_damage

#: Text that sorts after every key.
END = "\U0010ffff" * 2

_WIDTH = 48  #: least bytes of keys that are compared
_INNER = 100  #: rows that are read from a readable page back to the damaged one
_Rows = list[tuple[str, bytes]]


class Range(Struct, frozen=True, kw_only=True):
    """Keys of a table of a plugin, without the limits ``after`` and ``until``, in the order in which they are read."""

    plugin: str
    table: str
    after: bytes
    until: bytes
    newest: bool

    def behind(self, position: bytes) -> Range:
        """Return the rest of the range behind a key."""
        after, until = (self.after, position) if self.newest else (position, self.until)
        return Range(plugin=self.plugin, table=self.table, after=after, until=until, newest=self.newest)

    def back_from(self, position: bytes) -> Range:
        """Return the beginning of the range, up to a key, in reverse order."""
        after, until = (position, self.until) if self.newest else (self.after, position)
        return Range(plugin=self.plugin, table=self.table, after=after, until=until, newest=not self.newest)

    def read(self, db: sqlite3.Connection, limit: int) -> Sequence[tuple[str, bytes]]:
        order = "DESC" if self.newest else "ASC"
        sql = (
            "SELECT key, value FROM plugin_row WHERE plugin = ? AND name = ? AND key > CAST(? AS TEXT)"
            f" AND key < CAST(? AS TEXT) ORDER BY key {order} LIMIT ?"
        )
        values = (self.plugin, self.table, self.after, self.until, limit)
        return [(key, bytes(value)) for key, value in db.execute(sql, values)]

    def read_up_to_damage(self, db: sqlite3.Connection, limit: int) -> tuple[_Rows, sqlite3.DatabaseError | None]:
        """Return the rows before the first one that cannot be read, and the error of that one."""
        low, high, error = 0, limit, None
        rows: _Rows = []
        while low < high:  # a statement that fails has no result, so that fewer rows are read
            number = high if error is None else (low + high + 1) // 2
            try:
                rows, low = list(self.read(db, number)), number
            except sqlite3.DatabaseError as problem:
                if not is_damage(problem):
                    raise
                error, high = problem, number - 1
        return rows, error


class StoreScans:
    """Scans of the tables of one plugin, outside a transaction, see ``damage``."""

    def __init__(self, notes: DamageNotes) -> None:
        self._notes = notes
        self._gaps: dict[tuple[str, str, bool], list[tuple[bytes, bytes]]] = {}

    def scan(self, db: sqlite3.Connection, wanted: Range, limit: int) -> Sequence[tuple[str, bytes]]:
        """Return the first rows of a range that can be read."""
        found: _Rows = []
        while wanted.after < wanted.until:
            rows, error = wanted.read_up_to_damage(db, limit - len(found))
            found += rows
            if error is None:
                return found
            wanted = wanted.behind(rows[-1][0].encode()) if rows else wanted
            end = self._readable(db, wanted, error)
            inner, _ = wanted.back_from(end).read_up_to_damage(db, _INNER)
            found += inner[::-1][: limit - len(found)]
            wanted = wanted.behind(end)
        return found

    def _readable(self, db: sqlite3.Connection, wanted: Range, error: sqlite3.DatabaseError) -> bytes:
        """Return a key before the next readable row of a range that begins with an unreadable one."""
        begin = wanted.until if wanted.newest else wanted.after
        gaps = self._gaps.setdefault((wanted.plugin, wanted.table, wanted.newest), [])
        for first, last in gaps:
            if min(first, last) <= begin <= max(first, last) and begin != last:
                return last
        end = _search(db, wanted)
        gaps.append((begin, end))
        if (wanted.plugin, wanted.table, not wanted.newest) in self._gaps:
            return end  # noted by a scan in the other direction
        where = f"rows of the plugin {wanted.plugin}, table {wanted.table}, next to {begin.decode(errors='replace')!r}"
        self._notes.note_next(db, "plugin_row", where, error)
        return end


def _search(db: sqlite3.Connection, wanted: Range) -> bytes:
    """Return a key from which on a range can be read, close to the unreadable rows at its beginning.

    The steps of the search may pass readable pages, so that it goes back again from each key it finds.
    """
    width = max(len(wanted.after), len(wanted.until), _WIDTH) + 1
    begin, end = (int.from_bytes(key.ljust(width, b"\0"), "big") for key in (wanted.after, wanted.until))
    if wanted.newest:
        begin, end = end, begin
    towards, distance = (-1, begin - end) if wanted.newest else (1, end - begin)

    def is_readable(step: int) -> bool:
        key = (begin + towards * step).to_bytes(width, "big")
        return step >= distance or wanted.behind(key).read_up_to_damage(db, 1)[1] is None

    unreadable, step = 0, 1
    while not is_readable(step):
        unreadable, step = step, min(2 * step, distance)
    step = _first_readable(is_readable, unreadable, step)
    back = 1
    while back < step:
        if is_readable(step - back):
            step = _first_readable(is_readable, 0, step - back)
            back = 1
        else:
            back *= 2
    if step >= distance:
        return wanted.after if wanted.newest else wanted.until
    return (begin + towards * step).to_bytes(width, "big")


def _first_readable(is_readable: Callable[[int], bool], unreadable: int, readable: int) -> int:
    """Return the first readable step behind an unreadable one, by halving the distance between two steps."""
    while readable - unreadable > 1:
        middle = (unreadable + readable) // 2
        if is_readable(middle):
            readable = middle
        else:
            unreadable = middle
    return readable
