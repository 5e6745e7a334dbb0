"""A million stored invocations of a stopped engine, written in a few seconds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from engine.model.identity import key_at

ROWS = 1_000_000
#: Of ten functions; some wait, and one of a thousand failed. Only the oldest failure has the text ``RARE``.
FILL = f"""
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS - 1})
INSERT INTO invocation (key, function_id, version, alias, source, state, priority, rank, first_due, due, attempt, hops,
    memory, size, started, ended, code, message)
SELECT ?1 + (i << 15), 1 + i % 10, 'latest', '', 'API', CASE WHEN i % 1000 = 7 THEN 4 WHEN i % 40 = 3 THEN 0 ELSE 3 END,
    0, i, ?2, ?2, 1, 0, 0, 2, ?2, CASE WHEN i % 40 = 3 AND i % 1000 != 7 THEN NULL ELSE ?2 END,
    CASE WHEN i % 1000 = 7 THEN 4002 ELSE 0 END,
    CASE WHEN i = 7 THEN 'the disk is full' WHEN i % 1000 = 7 THEN 'no route to host' ELSE '' END FROM n
"""
RARE = "the disk is full"
#: Of ten functions, to three destinations; half are given up, the others due much later.
FILL_DELIVERIES = f"""
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS - 1})
INSERT INTO owed (key, function_id, condition, destination, param, due, tries, error, since)
SELECT ?1 + (i << 15), 1 + i % 10, 'success', 'WEBHOOK', '{{"url":"http://127.0.0.1:9/' || i % 3 || '"}}',
    CASE WHEN i % 2 THEN NULL ELSE ?2 + 100000 + i END, 3, 'connection refused', ?2 FROM n
"""


def fill(db: sqlite3.Connection, begin: float) -> None:
    """Add the invocations, accepted one each millisecond from ``begin`` on."""
    db.execute(FILL, (key_at(begin), begin))


def fill_deliveries(db: sqlite3.Connection, begin: float) -> None:
    db.execute(FILL_DELIVERIES, (key_at(begin), begin))


def fill_directory(data: Path, begin: float) -> None:
    """Add the invocations, all of them ended, and their deliveries to the data directory of a stopped engine."""
    with closing(sqlite3.connect(data / "journal.db")) as database, database:
        fill(database, begin)
        fill_deliveries(database, begin)
        database.execute("UPDATE invocation SET state = 3, ended = started WHERE state = 0")
        database.execute("INSERT OR REPLACE INTO tally (function_id, rows, size) VALUES (0, ?, ?)", (ROWS, 2 * ROWS))
