"""Checks at the start, on the opened database: tables without which no engine can run, and earlier damage.

Only small tables are read whole. Tables that grow with the number of invocations are not, so that a start takes the
same time with a million of them.
"""

from __future__ import annotations

import sqlite3

from engine.storage.sqlite.damage import is_damage

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


def check_start(db: sqlite3.Connection) -> str:
    """Return why the engine cannot run on this database, or an empty text. Runs outside a transaction."""
    for table in CATALOG:
        found = _result(db, f"PRAGMA integrity_check({table})")
        if found != "ok":
            return f"the table {table} is damaged ({found})"
    for table, column in GROWING.items():
        found = _result(db, f"SELECT 'ok', max({column}) FROM {table}")
        if found != "ok":
            return f"the newest page of the table {table} is damaged ({found})"
    return earlier_damage(db)


def earlier_damage(db: sqlite3.Connection) -> str:
    """Return what an earlier engine has noted about damaged pages, or an empty text."""
    found = db.execute(f"SELECT name || ' was set aside' FROM ({SET_ASIDE})").fetchall()
    found += db.execute("SELECT name || ': ' || problem FROM damage ORDER BY name, from_key LIMIT 1").fetchall()
    return f"an earlier engine found damaged pages ({found[0][0]})" if found else ""


def _result(db: sqlite3.Connection, sql: str) -> str:
    try:
        first = db.execute(sql).fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error) or (error.sqlite_errorcode or 0) & 0xFF == sqlite3.SQLITE_IOERR:
            raise
        return str(error)
    return " ".join(str(first).split())
