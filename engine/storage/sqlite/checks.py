"""Checks of a database that no engine has open: pages, rows that belong together, counters and cursors.

Each check is a function that yields problems. A check that cannot read its tables is a problem itself, and does not
prevent the others.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from msgspec import Struct

from engine.errors import RESTORE, recover
from engine.storage.sqlite.checksums import changed_rows, payload_problem, result_is_damaged
from engine.storage.sqlite.damage import is_damage
from engine.storage.sqlite.offline import read_only
from engine.storage.sqlite.rows import RESULT_SIZE

#: Tables that are read at the start, and whose loss would change functions, triggers or the identity of the journal.
CATALOG = ("meta", "function", "function_version", "async_settings", "resource", "cursor", "tally", "damage")
#: Tables that grow, with a column of the index to whose end new rows are added. Only the last page of it is read.
GROWING = {
    "invocation": "key",
    "payload": "key",
    "result": "key",
    "attempt": "key",
    "owed": "owed_id",
    "plugin_row": "plugin",
}
#: Tables that an earlier engine set aside, because new rows could not be added to them.
SET_ASIDE = (
    "SELECT name FROM sqlite_schema WHERE type = 'table'"
    " AND rtrim(name, '0123456789') IN ('payload_', 'result_', 'attempt_', 'owed_', 'status_log_')"
)


class Problem(Struct, frozen=True, kw_only=True):
    """Problem that a check of stored data has found."""

    part: str  #: part of the data, such as journal, payload, tally, cursor or code
    problem: str
    advice: str  #: next step


def check_start(db: sqlite3.Connection) -> str:
    """Return why the engine cannot run on this database, or an empty text. Runs outside a transaction."""
    for table in CATALOG:
        result = _result(db, f"PRAGMA integrity_check({table})")
        if result != "ok":
            return f"the table {table} is damaged ({result})"
    for table, column in GROWING.items():
        result = _result(db, f"SELECT 'ok', max({column}) FROM {table}")
        if result != "ok":
            return f"the newest page of the table {table} is damaged ({result})"
    return earlier_damage(db)


def earlier_damage(db: sqlite3.Connection) -> str:
    """Return what an earlier engine has noted about damaged pages, or an empty text."""
    notes = db.execute(f"SELECT name || ' was set aside' FROM ({SET_ASIDE})").fetchall()
    notes += db.execute("SELECT name || ': ' || problem FROM damage ORDER BY name, from_key LIMIT 1").fetchall()
    return f"an earlier engine found damaged pages ({notes[0][0]})" if notes else ""


def _result(db: sqlite3.Connection, sql: str) -> str:
    try:
        first = db.execute(sql).fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error) or (error.sqlite_errorcode or 0) & 0xFF == sqlite3.SQLITE_IOERR:
            raise
        return str(error)
    return " ".join(str(first).split())


Check = Callable[[sqlite3.Connection], Iterator[Problem]]

_INSTRUCTIONS = 100_000  #: of SQLite, after which a check calls ``on_read`` with 0, and ends if that raises
_SHOWN = 10  #: rows of one kind of problem
_RECOVER = recover()

#: Rows and bytes of waiting invocations by function. ``tally`` must equal them, and has all ended ones as function 0.
_COUNTED = """
SELECT function_id, count(*), sum(size) FROM invocation WHERE state < 3 GROUP BY function_id
"""
#: Of ended invocations. Logs of attempts count from the moment at which they are stored.
_ENDED = """
SELECT count(*), total(size + {}) FROM invocation i WHERE state >= 3
"""
_TALLIED = "SELECT function_id, rows, size FROM tally WHERE function_id >= 0 AND (rows <> 0 OR size <> 0)"


def find_problems(folder: Path, on_read: Callable[[int], int | None] = int) -> Iterator[Problem]:
    """Yield the problems of the database in a data directory or backup, which the caller keeps from being written."""
    try:
        with read_only(folder) as database:
            database.set_progress_handler(lambda: on_read(0), _INSTRUCTIONS)
            for check in (_pages, _rows, _sums, _payloads, _results, _tallies, _cursors, _damage):
                yield from _guarded(check, database)
    except (sqlite3.Error, OSError) as error:
        yield Problem(part="journal", problem=f"journal.db cannot be opened: {error}", advice=RESTORE)


def _guarded(check: Check, database: sqlite3.Connection) -> Iterator[Problem]:
    try:
        yield from check(database)
    except (sqlite3.Error, TypeError, ValueError) as error:  # also values of other types
        problem = f"its {check.__name__.removeprefix('_')} cannot be checked: {error}"
        yield Problem(part="journal", problem=problem, advice=RESTORE)


def _pages(database: sqlite3.Connection) -> Iterator[Problem]:
    names = {f"Tree {root}": name for root, name in database.execute("SELECT rootpage, name FROM sqlite_schema")}
    for [text] in database.execute("PRAGMA integrity_check"):
        for line in text.splitlines():
            unused = line.endswith("never used")  # pages of an index that an earlier engine created anew
            if line != "ok" and not unused and not line.startswith("*** in database"):
                named = re.sub(r"^Tree \d+", lambda tree: names.get(tree[0], tree[0]), line)
                yield Problem(part="journal", problem=named, advice=_RECOVER)


def _rows(database: sqlite3.Connection) -> Iterator[Problem]:
    """Find rows whose counterparts are lost."""
    stored = "EXISTS (SELECT 1 FROM payload p WHERE p.key = i.key)"
    for key in _first(database, f"SELECT key FROM invocation i WHERE state < 3 AND NOT {stored}"):
        problem = f"the payload of the unfinished invocation {key} is missing"
        yield Problem(part="payload", problem=problem, advice=f"send its event again, or {RESTORE}")
    for table in ("payload", "result"):
        alone = f"SELECT key FROM {table} p WHERE NOT EXISTS (SELECT 1 FROM invocation i WHERE i.key = p.key)"
        for key in _first(database, alone):
            problem = f"the invocation {key} of a {table} is missing"
            yield Problem(part="invocation", problem=problem, advice=f"if its end matters, {RESTORE}")


def _sums(database: sqlite3.Connection) -> Iterator[Problem]:
    for row in _shown(f"{' '.join(map(str, key))} of the table {table}" for table, _, key in changed_rows(database)):
        yield Problem(part="row", problem=f"the row {row} differs from its checksum", advice=_RECOVER)


def _payloads(database: sqlite3.Connection) -> Iterator[Problem]:
    """Find payloads whose bytes changed on disk."""
    if not _has_column(database, "payload", "sum"):  # earlier engines stored none
        return
    rows = database.execute("SELECT key, size, p.body, p.sum FROM payload p JOIN invocation USING (key)")
    for key in _shown(key for key, *stored in rows if payload_problem(key, *stored)):
        problem = f"the payload of the invocation {key} differs from its checksum"
        yield Problem(part="payload", problem=problem, advice=f"send its event again, or {RESTORE}")


def _results(database: sqlite3.Connection) -> Iterator[Problem]:
    """Find results and logs whose bytes changed on disk."""
    if not _has_column(database, "payload", "sum"):  # earlier engines stored none
        return
    rows = database.execute("SELECT key, body, log, sum FROM result")
    for key in _shown(key for key, *stored in rows if result_is_damaged(key, *stored)):
        problem = f"the result or log of the invocation {key} differs from its checksum"
        yield Problem(part="result", problem=problem, advice=f"if its result matters, {RESTORE}")


def _has_column(database: sqlite3.Connection, table: str, column: str) -> bool:
    sql = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
    return bool(database.execute(sql, (table, column)).fetchall())


def _first(database: sqlite3.Connection, sql: str) -> Iterator[str]:
    """Yield the keys that a query returns, as ``_shown`` does."""
    return _shown(key for [key] in database.execute(sql))


def _shown(keys: Iterator[object]) -> Iterator[str]:
    """Yield the keys as texts; instead of those after the first ones, one text with their number."""
    yield from map(str, islice(keys, _SHOWN))
    if more := sum(1 for _ in keys):
        yield f"(and {more} more)"


def _tallies(database: sqlite3.Connection) -> Iterator[Problem]:
    counted = {function: (rows, size) for function, rows, size in database.execute(_COUNTED)}
    [(rows, size)] = database.execute(_ENDED.format(RESULT_SIZE.format("i.key")))
    size = int(size) + _size_of_logs(database)
    if rows or size:
        counted[0] = (rows, size)
    tallied = {function: (rows, size) for function, rows, size in database.execute(_TALLIED)}
    for function in sorted(counted.keys() | tallied.keys()):
        stored, real = tallied.get(function, (0, 0)), counted.get(function, (0, 0))
        if stored != real:
            name = f"function {function}" if function else "ended invocations"
            told = f"the counter of {name} says {stored[0]} rows and {stored[1]} bytes"
            problem = f"{told}, but {real[0]} rows and {real[1]} bytes exist"
            yield Problem(part="tally", problem=problem, advice=f"limits of the backlog count wrongly; {RESTORE}")


def _size_of_logs(database: sqlite3.Connection) -> int:
    """Return the bytes of the logs of attempts, which earlier engines did not store."""
    if not _has_column(database, "attempt", "log"):
        return 0
    [size] = database.execute("SELECT coalesce(sum(length(log)), 0) FROM attempt").fetchone()
    return int(size)


def _cursors(database: sqlite3.Connection) -> Iterator[Problem]:
    triggers = "SELECT 1 FROM resource r WHERE r.kind = 'trigger' AND r.id = c.trigger_id"
    for trigger_id in _first(database, f"SELECT DISTINCT trigger_id FROM cursor c WHERE NOT EXISTS ({triggers})"):
        problem = f"a cursor belongs to the trigger {trigger_id}, which does not exist"
        yield Problem(part="cursor", problem=problem, advice=f"create the trigger again, or {RESTORE}")


def _damage(database: sqlite3.Connection) -> Iterator[Problem]:
    """Find damage that an earlier engine has noted."""
    noted = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'damage'").fetchall()
    if noted and (problem := earlier_damage(database)):  # engines before there were notes have no table for them
        yield Problem(part="damage", problem=problem, advice=_RECOVER)
