"""Recovery of a damaged journal: all rows that can be read go into a fresh one. Blocks the calling thread.

The damaged files are only read, and at last renamed. A table that the damaged schema does not name is looked for at the
root that it has in a fresh journal, because migrations create tables in the same order.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import DataDirectoryUnusable
from engine.errors.files import file_errors
from engine.model.identity import NODE_BITS, Identity
from engine.storage.data_directory import fsync_folder
from engine.storage.sqlite import damage
from engine.storage.sqlite import recovery_tables as tables
from engine.storage.sqlite.checksums import payload_problem, result_is_damaged
from engine.storage.sqlite.database import MARK, scripts
from engine.storage.sqlite.delivery_lists import marks
from engine.storage.sqlite.ordering import release_successors
from engine.storage.sqlite.ownership import APPLICATION_ID, RECOVERED
from engine.storage.sqlite.pages import Pages, Place, Row
from engine.storage.sqlite.row_sums import changed_rows

_REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_OLDER = re.compile(r"(payload|result|attempt)_\d+")  #: tables that earlier engines set aside after damage


class Loss(Struct, frozen=True):
    table: str
    state: str  #: of the invocation, or empty
    problem: str  #: meaning of the loss
    advice: str
    id: str = ""  #: of the row, or the place of lost rows


class Recovered(Struct, frozen=True, kw_only=True):
    journal: str  #: name of the journal, which is part of all request ids
    rows: dict[str, int]  #: by table
    running: int  #: invocations that ran, and wait again
    log_problem: str  #: of the write-ahead log
    damaged: str  #: path of the damaged file, which was renamed


class DamagedJournal:
    """Journal of a data directory that the caller has ``locked``. Raises DataDirectoryUnusable if it is none.

    ``on_progress`` gets the pages read so far, and those of the file. ``on_loss`` gets each loss. ``request_id`` is any
    id of the journal, which is needed if the journal's number is found nowhere.
    """

    def __init__(
        self,
        directory: Path,
        on_progress: Callable[[int, int], None] = lambda read, pages: None,
        on_loss: Callable[[Loss], None] = lambda loss: None,
        request_id: str = "",
    ) -> None:
        self._directory, self._path, self._on_loss = directory, directory / "journal.db", on_loss
        self._gaps: list[tuple[str, Place]] = []
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
            _create(model)
            numbered = "type = 'table' AND sql NOT LIKE '%WITHOUT ROWID'"
            found = model.execute(f"SELECT name, rootpage, {numbered} FROM sqlite_schema WHERE rootpage > 0").fetchall()
            columns = "SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info(?)"
            self._columns = {name: model.execute(columns, (name,)).fetchall() for name, *_ in found}
        self._numbered = {name for name, _, numbered in found if numbered}
        with file_errors(self._path):
            self._pages = Pages(self._path, on_progress)
        self._roots = self._find_roots({name: root for name, root, _ in found})
        self._meta = [row for row in self._rows("meta") if row[0] != "log" and not _OLDER.fullmatch(row[0])]
        self._number = self._find_number(request_id)
        self.identity = Identity(self._number)

    def recover(self) -> Recovered:
        """Replace the journal by a fresh one with all rows that can be read. If this fails, nothing is changed."""
        new = self._path.with_name("journal.db.recovering")
        try:
            new.unlink(missing_ok=True)
            with closing(sqlite3.connect(new, isolation_level=None)) as db:
                running = self._fill(db)
                rows = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables.MEANING}
            owner = self._path.stat()  # the engine's user, although root may run the command
            os.chown(new, owner.st_uid, owner.st_gid)
            with new.open("rb") as file:
                os.fsync(file.fileno())
        except BaseException as error:
            new.unlink(missing_ok=True)
            if isinstance(error, OSError | sqlite3.Error):
                problem = f"the fresh journal cannot be written ({error}), and nothing was changed"
                raise self._unusable(f"{problem}; free some space, then recover again") from error
            raise
        new.rename(self._path.with_name(RECOVERED))
        return Recovered(
            journal=self.identity.name,
            rows=rows,
            running=running,
            log_problem=self._pages.log.problem,
            damaged=str(put_in_place(self._directory)),
        )

    # --- damaged file ---------------------------------------------------------------------------------------

    def _unusable(self, problem: str) -> DataDirectoryUnusable:
        return DataDirectoryUnusable(str(self._path), problem)

    def _find_roots(self, usual: dict[str, int]) -> dict[str, int]:
        """Return the root pages of tables and indexes by their names. ``usual`` are those of a fresh journal."""
        header, lost = self._pages.header, list[Place]()
        if header and header[68:72] not in (bytes(4), APPLICATION_ID.to_bytes(4, "big")):
            raise self._unusable("the database of another program; name the data directory of an engine")
        if header and int.from_bytes(header[60:64], "big") > scripts()[-1][0]:
            raise self._unusable("was written by a newer functiond; recover it with that version")
        named = {row[1]: row[3] for row in self._pages.rows(1, True, lost) if len(row) == 5 and row[3]}
        if lost:
            roots = self._pages.roots()
            named = {name: root for name, root in usual.items() if root in roots or not roots} | named
            for name in {"owed", "status_log"} if {*roots} - {*named.values()} else ():
                self._lose(name, "all, because an older table cannot be told from the present one")
                del named[name]
        has_rows = any(next(self._pages.rows(root, name in self._numbered, []), None) for name, root in named.items())
        if not (named.keys() >= {"meta", "invocation"} and has_rows):
            raise self._unusable("has no tables of a journal; name the data directory of an engine")
        return named

    def _find_number(self, request_id: str) -> int:
        """Return the number of the journal, which is part of all request ids. Files with long logs are named so."""
        for name, value in self._meta:
            if name == "node":
                return int(value)
        for text in (request_id, *(path.name for path in self._directory.glob("logs/*/*"))):
            if _REQUEST_ID.fullmatch(text):
                return int(text[19:23] + text[24:], 16) & ((1 << NODE_BITS) - 1)
        raise self._unusable("has lost its number, a part of all request ids; name one of these with --request-id")

    def _rows(self, table: str) -> Iterator[Row]:
        """Yield the sound rows of a table, then those of its older ones."""
        older = [name for name in self._roots if _OLDER.fullmatch(name) and name.startswith(f"{table}_")]
        for name in [name for name in (table, *reversed(older)) if name in self._roots]:
            lost = list[Place]()
            for row in self._pages.rows(self._roots[name], table in self._numbered, lost):
                if self._fits(table, row) and _is_sound(table, row):
                    yield row
                elif table != "payload":  # those are listed with the states of their invocations
                    self._lose(table, self._id(table, row))
            self._gaps += [(table, place) for place in lost]

    def _fits(self, table: str, row: Row) -> bool:
        """Return whether a row has values of the right types. Tables of earlier engines lack the last columns."""
        columns = self._columns[table]
        for value, (_, kind, required, *_) in zip(row, columns, strict=False):
            if required if value is None else not isinstance(value, tables.TYPES[kind]):
                return False
        return len(row) <= len(columns) and all(not one[2] or one[3] is not None for one in columns[len(row) :])

    # --- fresh journal --------------------------------------------------------------------------------------

    def _fill(self, db: sqlite3.Connection) -> int:
        """Write the fresh journal. Return the number of invocations that ran."""
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536")
        _create(db)
        db.execute("BEGIN")
        for table in tables.MEANING:
            for size, rows in groupby(self._meta if table == "meta" else self._rows(table), key=len):
                names = ", ".join(name for name, *_ in self._columns[table][:size])
                db.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks(size)})", rows)
        changed = list(changed_rows(db))
        for table, names, key in changed:
            db.execute(f"DELETE FROM {table} WHERE ({names}) = ({marks(len(key))})", key)
            self._lose(table, self._id(table, key))
        db.execute("INSERT OR IGNORE INTO meta VALUES ('node', ?)", (self._number,))
        for sql in tables.PREPARE:
            db.execute(sql)
        for row in db.execute(tables.STRAY).fetchall():
            self._lose("cursor", _text(row))
        if changed or self._gaps or self._pages.log.problem:
            self._find_lost(db)
        for sql, (table, state, problem, advice) in tables.LISTS.items():
            for [key] in db.execute(sql):
                self._on_loss(Loss(table, state, problem, advice, self.identity.request_id(key)))
        for table, place in self._gaps:
            after, until = (self._id(table, row) if row else "an end" for row in (place.after, place.until))
            self._lose(table, f"page {place.page}, between {after} and {until}")
        [running] = db.execute("SELECT count(*) FROM invocation WHERE state = 2").fetchone()
        for sql in tables.COMPLETE:
            db.execute(sql)
        release_successors(db, db.execute(tables.HELD).fetchall(), time.time())
        self._keep_sequences(db)
        db.execute("COMMIT")
        return int(running)

    def _find_lost(self, db: sqlite3.Connection) -> None:
        """Find rows that are named by an index, or by rows of other tables, and are lost."""
        for name, (state, columns) in tables.INDEXES.items():
            names = (*columns, "state")[: len(columns) + (state is not None)]
            changes = ", ".join(f"{one} = excluded.{one}" for one in names if one != "key")
            sql = (
                f"INSERT INTO seen ({', '.join(names)}) SELECT {marks(len(names))} WHERE NOT EXISTS (SELECT 1 FROM"
                f" invocation WHERE key = ?{len(columns)}) ON CONFLICT (key) DO UPDATE SET {changes}"
            )
            entries = (row for row in self._entries(name, len(columns)) if isinstance(row[-1], int))
            db.executemany(sql, ([*row, state][: len(names)] for row in entries))
        for sql in tables.REMAKE:
            db.execute(sql)
        for name, (table, where) in tables.OTHERS.items():
            for row in self._entries(name, where.count("?")):
                if not db.execute(f"SELECT 1 FROM {table} WHERE {where}", row).fetchone():
                    self._lose(table, self._id(name, row) if table == "owed" else _text(row))

    def _entries(self, index: str, size: int) -> Iterator[Row]:
        return (row for row in self._pages.rows(self._roots.get(index, 0), False, []) if len(row) == size)

    def _keep_sequences(self, db: sqlite3.Connection) -> None:
        """Keep ids above all that are known, because those of deleted functions must not be given out again."""
        stored = self._pages.rows(self._roots.get("sqlite_sequence", 0), True, [])
        known = [(row[0], row[1]) for row in stored if len(row) == 2 and isinstance(row[1], int)]
        known += [("function", row[0]) for row in self._rows("tally")]
        known += [("function", last or 0) for [last] in db.execute(tables.LAST_FUNCTION)]
        known += db.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
        db.execute("DELETE FROM sqlite_sequence")
        for name in ("function", "owed"):
            last = max((number for table, number in known if table == name), default=0)
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))

    def _lose(self, table: str, id: str) -> None:
        if table in tables.MEANING:
            self._on_loss(Loss(table, "", *tables.MEANING[table], id))

    def _id(self, table: str, row: Row) -> str:
        if isinstance(row[0], int) and table in ("invocation", "payload", "result", "attempt", "owed_key"):
            return _text([self.identity.request_id(row[0]), *row[1:]][: 1 + (table == "owed_key")])
        return _text(row[: sum(pk > 0 for *_, pk in self._columns[table])])


def put_in_place(directory: Path) -> Path:
    """Rename the damaged files, and give the complete fresh journal its name. Return the new path of the damaged one.

    Call this again if it was interrupted and the data directory has no journal.
    """
    path, fresh = directory / "journal.db", directory / RECOVERED
    damaged = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.localtime(fresh.stat().st_mtime))}"
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{damaged}{end}")
    for stale in (f"{path}-shm", directory / damage.MARK):
        Path(stale).unlink(missing_ok=True)
    fsync_folder(directory)
    fresh.rename(path)
    fsync_folder(directory)
    return Path(damaged)


def _create(db: sqlite3.Connection) -> None:
    db.executescript(MARK)
    for number, script in scripts():
        db.executescript(f"{script.read_text()};PRAGMA user_version = {number}")


def _is_sound(table: str, row: Row) -> bool:
    """Return whether the checksum of a row holds, or its body can be decoded."""
    if table == "payload":
        return not payload_problem(row[0], len(row[1]), row[1], row[2] if len(row) > 2 else None)
    if table == "result":
        return not result_is_damaged(row[0], row[1], row[2], row[3] if len(row) > 3 else None)
    if table in tables.BODIES:
        column, kind = tables.BODIES[table]
        try:
            msgspec.json.decode(row[column], type=kind)
        except (msgspec.MsgspecError, ValueError):
            return False
    return bool(table != "invocation" or -1 <= row[5] <= 5)


def _text(values: Sequence[object]) -> str:
    return ", ".join(str(value)[:80] for value in values)
