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
from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import DataDirectoryUnusable
from engine.errors.files import file_errors
from engine.isolation.machine import fsync_path
from engine.model import AsyncSettings, Function
from engine.model.identity import NODE_BITS, Identity
from engine.protocols import StatusTarget
from engine.storage.sqlite import damage
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.checksums import changed_rows, payload_problem, result_is_damaged
from engine.storage.sqlite.database import MARK, scripts
from engine.storage.sqlite.journal_check import APPLICATION_ID, RECOVERED
from engine.storage.sqlite.pages import Pages, Place, Row
from engine.storage.sqlite.rows import marks

#: Tables in the order in which they are recovered, with the meaning of a lost row and the next step.
_MEANING = {
    "meta": ("a number of the engine is lost", ""),
    "function": ("the name of a function is lost", "deploy the function again if it is missing"),
    "function_version": ("the version of the function cannot run", "deploy or publish it again"),
    "async_settings": ("retries, age limit and destinations are those of a new function", "set them again"),
    "resource": ("an alias, trigger, dependency or the like is gone", "create it again"),
    "cursor": ("its trigger begins as a new one", "compare what it has read with its source"),
    "plugin_row": ("a stream, topic, record or the like is gone", "create or send it again"),
    "invocation": ("rows that no index names may be lost, too", "send events again whose ids are not found"),
    "payload": ("events are lost; those of known invocations are listed", ""),
    "result": ("records have neither result nor log", ""),
    "attempt": ("records lack attempts", ""),
    "owed": ("an outcome is not delivered", "look at its record, and tell the receiver"),
    "idempotency": ("a repetition of its request runs again", ""),
    "call": ("a run that is repeated queues its call again, and its group waits for it", "cancel the group"),
    "call_group": ("its continuation waits for ever", "cancel it, and queue it again"),
    "status_target": ("states of a function are not logged", "set its status log again"),
    "status_log": ("changes of states are missing in their log stream", ""),
}
_TYPES: dict[str, Any] = {"INTEGER": int, "REAL": (float, int), "TEXT": str, "BLOB": bytes}
#: Columns with JSON, and its type.
_BODIES: dict[str, tuple[int, Any]] = {
    "function_version": (2, Function),
    "async_settings": (2, AsyncSettings),
    "resource": (3, Any),
    "status_target": (4, StatusTarget),
}
#: Indexes that name invocations: the state of these, and the columns of an entry.
_INDEXES = {
    "ready": (0, ("function_id", "rank", "key")),
    "delayed": (1, ("due", "key")),
    "running": (2, ("function_id", "key")),
    "held": (-1, ("function_id", "key")),
    "finished": (3, ("function_id", "key")),
    "ordering": (None, ("function_id", "ordering_key", "state", "key")),
}
#: Indexes that name rows of other tables: the table, and the condition for the row of an entry.
_OTHERS = {
    "owed_key": ("owed", "key = ?1 AND owed_id = ?2"),
    "idempotency_expires": ("idempotency", "expires = ?1 AND function_id = ?2 AND token = ?3"),
    "resource_owner": ("resource", "owner = ?1 AND kind = ?2 AND id = ?3"),
}
_PREPARE = (
    "CREATE TEMP TABLE seen (key INTEGER PRIMARY KEY, function_id, state, rank, due, ordering_key)",
    "DELETE FROM payload WHERE length(body) <> (SELECT size FROM invocation i WHERE i.key = payload.key)",
    "INSERT OR IGNORE INTO function (function_id, project, package, name) SELECT function_id,"
    " json_extract(body, '$.project'), json_extract(body, '$.package'), json_extract(body, '$.name')"
    " FROM (SELECT function_id, CAST(body AS TEXT) AS body FROM function_version)",
)
#: Cursors of lost triggers, which get other ids when they are created again.
_STRAY = (
    "DELETE FROM cursor WHERE trigger_id NOT IN (SELECT id FROM resource WHERE kind = 'trigger')"
    " RETURNING trigger_id, name"
)
_ALONE = "key NOT IN (SELECT key FROM invocation)"
#: Invocations without a row that other tables name. Then waiting ones whose event is there get a new row, if their
#: function has no version but ``latest``.
_REMAKE = (
    f"INSERT OR IGNORE INTO seen (key, state) SELECT key, 3 FROM owed WHERE {_ALONE}",
    f"INSERT OR IGNORE INTO seen (key) SELECT key FROM payload WHERE {_ALONE}",
    f"INSERT OR IGNORE INTO seen (key) SELECT key FROM result WHERE {_ALONE}",
    "UPDATE seen SET function_id = i.function_id FROM idempotency i WHERE i.key = seen.key AND state = 1",
    "INSERT INTO invocation (key, function_id, version, alias, source, state, priority, rank, first_due, due, attempt,"
    " hops, memory, size, ordering_key) SELECT key, function_id, 'latest', '', 'API', state, 0, coalesce(rank, due,"
    " at), coalesce(due, at), coalesce(due, at), 1 + (SELECT count(*) FROM attempt a WHERE a.key = s.key), 0, 0,"
    " length(body), ordering_key FROM (SELECT *, (key >> 15) / 1000.0 AS at FROM seen WHERE state < 3) s"
    " JOIN payload USING (key) WHERE function_id IN (SELECT function_id FROM function_version GROUP BY 1"
    " HAVING max(version) = 'latest' AND count(*) = 1)",
)
#: Queries for keys of invocations, each with table, state, meaning, and next step.
_LISTS = {
    "SELECT key FROM seen JOIN invocation USING (key)": (
        ("invocation", "WAIT", "only its event is left: it runs without its priority, origin and earlier attempts", "")
    ),
    f"SELECT key FROM seen WHERE state < 3 AND {_ALONE}": (
        ("invocation", "WAIT", "it does not run, and its idempotency key is free again", "send its event again")
    ),
    f"SELECT key FROM seen WHERE state >= 3 AND {_ALONE}": (
        ("invocation", "ended", "its record is lost, and a delivery of its outcome is given up", "")
    ),
    f"SELECT key FROM seen WHERE state IS NULL AND {_ALONE}": (
        ("invocation", "unknown", "it does not run, and its idempotency key is free again", "send its event again")
    ),
    "SELECT key FROM invocation WHERE state < 3 AND key NOT IN (SELECT key FROM payload)": (
        ("payload", "WAIT", "it fails with code 150500, which on_failure gets", "send its event again")
    ),
    "SELECT key FROM invocation WHERE state >= 3 AND key NOT IN (SELECT key FROM payload)": (
        ("payload", "ended", "its record has no event", "")
    ),
}
#: Statements that complete the fresh journal. Running invocations wait again, without a counted crash.
_COMPLETE = (
    *(f"DELETE FROM {table} WHERE {_ALONE}" for table in ("payload", "result", "attempt")),
    f"DELETE FROM idempotency WHERE key IN (SELECT key FROM seen WHERE coalesce(state, 0) < 3) AND {_ALONE}",
    "DELETE FROM status_log WHERE target_id NOT IN (SELECT target_id FROM status_target)",
    "INSERT INTO status_log (target_id, state, at, code, message, key) SELECT target_id, 0, strftime('%s'), 0, '', key"
    " FROM invocation i JOIN status_target USING (function_id, version) WHERE i.state = 2 AND enabled = 1",
    "UPDATE invocation SET state = 0 WHERE state = 2",
    "INSERT INTO tally SELECT function_id, count(*), sum(size) FROM invocation WHERE state < 3 GROUP BY function_id",
    "INSERT INTO tally SELECT 0, count(*), total(size) + (SELECT total(length(body) + length(r.log)) FROM result r"
    " JOIN invocation USING (key) WHERE state >= 3) + (SELECT total(length(log)) FROM attempt) FROM invocation"
    " WHERE state >= 3",
    "INSERT INTO tally SELECT -function_id, count(*), sum(size) FROM invocation WHERE state >= 3 GROUP BY function_id",
)
_WITH_FUNCTION = "function, function_version, async_settings, invocation, idempotency, owed, status_target, seen"
_LAST_FUNCTION = " UNION ALL ".join(f"SELECT max(function_id) FROM {table}" for table in _WITH_FUNCTION.split(", "))
_HELD = "SELECT DISTINCT function_id, ordering_key FROM invocation WHERE state = -1 AND ordering_key IS NOT NULL"


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
            rows = model.execute(f"SELECT name, rootpage, {numbered} FROM sqlite_schema WHERE rootpage > 0").fetchall()
            columns = "SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info(?)"
            self._columns = {name: model.execute(columns, (name,)).fetchall() for name, *_ in rows}
        self._numbered = {name for name, _, numbered in rows if numbered}
        with file_errors(self._path):
            self._pages = Pages(self._path, on_progress)
        self._roots = self._find_roots({name: root for name, root, _ in rows})
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
                rows = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _MEANING}
            owner = self._path.stat()  # the engine's user, although root may run the command
            os.chown(new, owner.st_uid, owner.st_gid)
            fsync_path(new)
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
            if required if value is None else not isinstance(value, _TYPES[kind]):
                return False
        return len(row) <= len(columns) and all(not info[2] or info[3] is not None for info in columns[len(row) :])

    # --- fresh journal --------------------------------------------------------------------------------------

    def _fill(self, db: sqlite3.Connection) -> int:
        """Write the fresh journal. Return the number of invocations that ran."""
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536")
        _create(db)
        db.execute("BEGIN")
        for table in _MEANING:
            for size, rows in groupby(self._meta if table == "meta" else self._rows(table), key=len):
                names = ", ".join(name for name, *_ in self._columns[table][:size])
                db.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks(size)})", rows)
        changed = list(changed_rows(db))
        for table, names, key in changed:
            db.execute(f"DELETE FROM {table} WHERE ({names}) = ({marks(len(key))})", key)
            self._lose(table, self._id(table, key))
        db.execute("INSERT OR IGNORE INTO meta VALUES ('node', ?)", (self._number,))
        for sql in _PREPARE:
            db.execute(sql)
        for row in db.execute(_STRAY).fetchall():
            self._lose("cursor", _text(row))
        if changed or self._gaps or self._pages.log.problem:
            self._find_lost(db)
        for sql, (table, state, problem, advice) in _LISTS.items():
            for [key] in db.execute(sql):
                self._on_loss(Loss(table, state, problem, advice, self.identity.request_id(key)))
        for table, place in self._gaps:
            after, until = (self._id(table, row) if row else "an end" for row in (place.after, place.until))
            self._lose(table, f"page {place.page}, between {after} and {until}")
        [running] = db.execute("SELECT count(*) FROM invocation WHERE state = 2").fetchone()
        for sql in _COMPLETE:
            db.execute(sql)
        db.executemany(SQL[Statement.RELEASE], [(*key, time.time()) for key in db.execute(_HELD).fetchall()])
        self._keep_sequences(db)
        db.execute("COMMIT")
        return int(running)

    def _find_lost(self, db: sqlite3.Connection) -> None:
        """Find rows that are named by an index, or by rows of other tables, and are lost."""
        for name, (state, columns) in _INDEXES.items():
            names = (*columns, "state")[: len(columns) + (state is not None)]
            changes = ", ".join(f"{column} = excluded.{column}" for column in names if column != "key")
            sql = (
                f"INSERT INTO seen ({', '.join(names)}) SELECT {marks(len(names))} WHERE NOT EXISTS (SELECT 1 FROM"
                f" invocation WHERE key = ?{len(columns)}) ON CONFLICT (key) DO UPDATE SET {changes}"
            )
            entries = (row for row in self._entries(name, len(columns)) if isinstance(row[-1], int))
            db.executemany(sql, ([*row, state][: len(names)] for row in entries))
        for sql in _REMAKE:
            db.execute(sql)
        for name, (table, where) in _OTHERS.items():
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
        known += [("function", last or 0) for [last] in db.execute(_LAST_FUNCTION)]
        known += db.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
        db.execute("DELETE FROM sqlite_sequence")
        for name in ("function", "owed"):
            last = max((number for table, number in known if table == name), default=0)
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))

    def _lose(self, table: str, id: str) -> None:
        if table in _MEANING:
            self._on_loss(Loss(table, "", *_MEANING[table], id))

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
    fsync_path(directory)
    fresh.rename(path)
    fsync_path(directory)
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
    if table in _BODIES:
        column, kind = _BODIES[table]
        try:
            msgspec.json.decode(row[column], type=kind)
        except (msgspec.MsgspecError, ValueError):
            return False
    return bool(table != "invocation" or -1 <= row[5] <= 5)


def _text(values: Sequence[object]) -> str:
    return ", ".join(str(value)[:80] for value in values)
