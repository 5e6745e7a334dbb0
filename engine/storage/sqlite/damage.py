"""Damaged pages that an open journal has met.

Checksums and reads of single rows let accepted work go on beside a damaged page. Nothing is repaired: the program
``functiond recover`` reads the pages of a stopped engine's file. From the first damage on, nothing is pruned, because
pages that are used again destroy what it reads.

An invocation that cannot be appended, or an end that cannot be stored, ends the intake. The engine stops when accepted
work has drained. The file ``journal.damaged`` then refuses each further start.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from pathlib import Path
from time import monotonic

import msgspec
import structlog
from msgspec import Struct

from engine.errors import PageDamaged, recover
from engine.storage.data_directory import fsync_folder

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

    def mark(self, found: str) -> str:
        """Store the reason for which the engine stops and no later one starts, and return it. Blocks the thread.

        ``found`` is the result of ``find_page``.
        """
        problem = f"{found or 'a page of the journal is damaged'} ({self._problem}); {recover(self._folder)}"
        self.refusal = problem
        try:
            with (self._folder / MARK).open("wb") as file:
                file.write(msgspec.json.encode(_Mark(problem)))
                file.flush()
                os.fsync(file.fileno())
            fsync_folder(self._folder)
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
        [found] = db.execute("PRAGMA quick_check(1)").fetchone()
        if not (tree := re.search(r"Tree (\d+) page (\d+)", found)):
            return "" if found == "ok" else f"the journal is damaged: {found.splitlines()[-1]}"
        table = db.execute("SELECT name FROM sqlite_schema WHERE rootpage = ?", (tree[1],)).fetchone()
    except sqlite3.DatabaseError:
        return ""
    return f"page {tree[2]} of {table[0] if table else 'the journal'} is damaged"
