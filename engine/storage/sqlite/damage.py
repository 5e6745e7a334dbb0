"""Damaged pages that an open journal has met.

Checksums and reads of single rows let accepted work go on beside a damaged page. Nothing is repaired: the program
``functiond recover`` reads the pages of a stopped engine's file. From the first damage on, nothing is pruned, because
pages that are used again destroy what it reads.

An invocation that cannot be appended, or an end that cannot be stored, ends the intake. The engine stops when accepted
work has drained. The file ``journal.damaged`` then refuses each further start.

A read of many rows that meets a damaged page is repeated row by row. An index has the keys that a read needs, so they
are read from the index alone, then each row by its key. Rows that cannot be read are left out until the engine stops.
After a statement has met a damaged page, SQLite refuses all further writes of the same transaction, so these reads run
outside a transaction, in the writer's thread.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from engine.errors import PageDamaged, recover
from engine.isolation.machine import fsync_path

log = structlog.get_logger("functiond.journal")

MARK = "journal.damaged"
#: Seconds after which the search for the damaged page is given up.
SEARCH = 5.0
#: Codes of SQLite for pages that the disk cannot read.
_READ_ERRORS = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Mark(Struct):
    problem: str


def is_damage(error: BaseException) -> bool:
    """Return whether a statement failed at a page or row that cannot be read, and not at a write."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in _DAMAGE or code in _READ_ERRORS or str(error).startswith("Could not decode")


class Damage:
    """Damage of the journal in a folder. ``met`` may be called in any thread, all other methods in the event loop."""

    def __init__(self, folder: Path) -> None:
        self.first = ""  #: first damage; empty: none was met
        self.refusal = ""  #: why nothing is appended any more; empty: appends go on
        self.unstored = 0  #: ends of attempts and deliveries that are not stored
        self._folder, self._problem, self._ended = folder, "", asyncio.Event()

    def met(self, error: BaseException) -> PageDamaged:
        """Return the error for the caller of a statement that met a damaged page. Log the first one."""
        if not self.first:
            advice = f"stop the engine and {recover(self._folder)}"
            self.first = f"a page of the journal is damaged ({error}), so nothing is pruned; {advice}"
            log.error("a page of the journal is damaged: nothing is pruned any more", problem=str(error), advice=advice)
        return PageDamaged(str(error))

    def check(self) -> None:
        """Raise PageDamaged if nothing is appended any more."""
        if self.refusal:
            raise PageDamaged(self._problem)

    def note_append(self, error: BaseException | None) -> None:
        """End the intake if an append has met a damaged page."""
        if isinstance(error, PageDamaged) and not self.refusal:
            self._problem, self.refusal = error.problem, self.first
            self._ended.set()

    def note_end(self, error: PageDamaged) -> None:
        """Count the end of an attempt or delivery that has met a damaged page, and end the intake."""
        self.unstored += 1
        self.note_append(error)

    async def ended(self) -> None:
        await self._ended.wait()

    def mark(self, damage: str) -> str:
        """Store the reason for which the engine stops and no later one starts, and return it. Blocks the thread.

        ``damage`` is the result of ``find_page``.
        """
        problem = f"{damage or 'a page of the journal is damaged'} ({self._problem}); {recover(self._folder)}"
        self.refusal = problem
        try:
            with (self._folder / MARK).open("wb") as file:
                file.write(msgspec.json.encode(_Mark(problem)))
                file.flush()
                os.fsync(file.fileno())
            fsync_path(self._folder)
        except OSError as error:  # the next start finds the damage, or ends the intake again
            log.warning("mark of the damage not stored", problem=str(error))
        return problem


def marked(folder: Path) -> str:
    """Return why an earlier engine stopped at a damaged page of the journal in a folder; empty if none did."""
    try:
        return msgspec.json.decode((folder / MARK).read_bytes(), type=_Mark).problem
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.MsgspecError):
        return f"its journal is damaged; {recover(folder)}"


def find_page(db: sqlite3.Connection, seconds: float = SEARCH) -> str:
    """Return words about the first damaged page and its table; empty if a check finds none in this time."""
    until = monotonic() + seconds
    db.set_progress_handler(lambda: monotonic() > until, 10_000)
    try:
        [result] = db.execute("PRAGMA quick_check(1)").fetchone()
        if not (tree := re.search(r"Tree (\d+) page (\d+)", result)):
            return "" if result == "ok" else f"the journal is damaged: {result.splitlines()[-1]}"
        table = db.execute("SELECT name FROM sqlite_schema WHERE rootpage = ?", (tree[1],)).fetchone()
    except sqlite3.DatabaseError:
        return ""
    return f"page {tree[2]} of {table[0] if table else 'the journal'} is damaged"


_LOST = sqlite3.DatabaseError("an index names a row that its table does not have")


class LeftOut:
    """Rows of a table that cannot be read, and reads of the others. ``key`` is the column of their keys."""

    def __init__(self, damage: Damage, table: str, key: str) -> None:
        self.condition = ""  #: SQL condition that leaves the rows out; empty: there are none
        self._damage, self._name, self._key = damage, f"unreadable_{table}", key

    def keys(self, db: sqlite3.Connection, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Return the rows that an index can be read to."""
        rows: list[tuple[Any, ...]] = []
        try:
            rows.extend(db.execute(sql, values))
        except sqlite3.DatabaseError as error:
            self._met(error)
        return rows

    def rows(self, db: sqlite3.Connection, sql: str, keys: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that a statement returns for each of the keys, and leave out those that cannot be read."""
        for key in keys:
            try:
                row = db.execute(sql, (key,)).fetchone()
                if row is None:
                    raise _LOST
            except sqlite3.DatabaseError as error:
                self._met(error)
                self.add(db, key)
            else:
                yield row

    def change(self, db: sqlite3.Connection, sql: str, keys: Sequence[int]) -> Sequence[int]:
        """Change rows in one transaction. Leave out those that cannot be written, and return the keys of the others."""
        left = list(keys)
        while left:
            current = left[0]
            try:
                db.execute("BEGIN IMMEDIATE")
                for current in left:
                    db.execute(sql, (current,))
                db.execute("COMMIT")
                break
            except sqlite3.DatabaseError as error:
                db.rollback()
                self._met(error)
                left.remove(current)
                self.add(db, current)
        return left

    def add(self, db: sqlite3.Connection, key: int) -> None:
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {self._name} (key INTEGER PRIMARY KEY)")
        db.execute(f"INSERT OR IGNORE INTO {self._name} VALUES (?)", (key,))
        self.condition = f" AND {self._key} NOT IN {self._name}"

    def _met(self, error: sqlite3.DatabaseError) -> None:
        if error is not _LOST and not is_damage(error):
            raise error
        self._damage.met(error)
