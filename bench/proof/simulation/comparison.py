"""Comparison of a real database with the tables of the simulation, row by row, after the end of a process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from bench.proof.checker import REAL_TALLY, TALLY, WRONG
from bench.proof.simulation.world import LINES, World
from engine.model import State
from engine.storage.sqlite.checksums import changed_rows
from tests.doubles.rows import Row
from tests.doubles.tables import MemoryTables

FINAL = {State.SUCCESS: 3, State.FAIL: 4, State.DISCARD: 5}
_INVOCATIONS = (
    "SELECT key, function_id, state, priority, attempt, ordering_key, size, CASE WHEN state < 3 THEN rank END,"
    " CASE WHEN state < 3 THEN first_due END, CASE WHEN state < 3 THEN due END,"
    " CASE WHEN state < 3 THEN failures END, CASE WHEN state < 3 THEN deaths END,"
    " CASE WHEN state < 3 THEN start_deaths END, CASE state WHEN 2 THEN begun END,"
    " CASE WHEN state > 2 THEN code END FROM invocation"
)
#: Entries of the status log in their order, first those in the stream: key and state.
_ENTRIES = "SELECT key, state FROM status_log ORDER BY entry_id"
_STREAM = f"SELECT value FROM plugin_row WHERE plugin = '{LINES}' ORDER BY key"
KEPT = 5  #: rows of a table that a violation names


def differences(folder: Path, world: World) -> Iterator[str]:
    """Yield what is on disk, but not in the tables, and the other way round."""
    with closing(sqlite3.connect(f"{(folder / 'journal.db').as_uri()}?mode=ro", uri=True)) as database:
        tables, read = world.tables, database.execute
        yield from _compare("invocations", read(_INVOCATIONS), map(_columns, tables.rows.values()))
        whole = (row for row in tables.rows.values() if row.invocation.key not in world.damaged)
        payloads = ((row.invocation.key, row.invocation.payload) for row in whole)
        stored = ((key, body) for key, body in read("SELECT key, body FROM payload") if key not in world.damaged)
        yield from _compare("payloads", stored, payloads)
        owed = read("SELECT owed_id, key, condition, destination, param, due, tries FROM owed")
        yield from _compare("deliveries", owed, _deliveries(tables))
        yield from _compare(
            "cursors",
            read("SELECT trigger_id, name, position FROM cursor"),
            (
                (trigger_id, name, position)
                for trigger_id, names in tables.cursors.items()
                for name, position in names.items()
            ),
        )
        rows = read("SELECT plugin, name, key, value FROM plugin_row WHERE plugin <> ?", (LINES,))
        stores = tables.stores.items()
        yield from _compare(
            "rows of plugins",
            rows,
            ((plugin, table, key, value) for (plugin, table), kept in stores for key, value in kept.items()),
        )
        for function_id, token, key in read("SELECT function_id, token, key FROM idempotency"):
            used = tables.idempotency.get((function_id, token))
            if used is None or used.key != key:
                yield f"the idempotency key {token} is of {key} on disk"
        for table, _, key in changed_rows(database):
            yield f"the row {key} of {table} differs from its checksum"
        for what, sql in WRONG.items():
            if wrong := [row[0] for row in read(sql)]:
                yield f"{what}: {wrong[:KEPT]}"
        yield from _compare("sums of the tally", read(TALLY), read(REAL_TALLY))
        yield from _status_problems(database, world)


def _compare(what: str, stored: Iterable[Any], expected: Iterable[Any]) -> Iterator[str]:
    on_disk, kept = set(stored), set(expected)
    if on_disk != kept:
        more, missing = sorted(on_disk - kept, key=str)[:KEPT], sorted(kept - on_disk, key=str)[:KEPT]
        yield f"{what} on disk are {more}, not {missing}"


def _columns(row: Row) -> tuple[Any, ...]:
    invocation, final = row.invocation, row.state.final
    waits = -1 if invocation.held else 1 if invocation.delayed else 0
    state = FINAL.get(row.state, 2 if row.state is State.RUNNING else waits)
    present = (
        invocation.rank,
        invocation.first_due_at,
        invocation.due_at,
        invocation.failures,
        invocation.crash_count,
        invocation.start_crashes,
    )
    return (
        invocation.key,
        invocation.function_id,
        state,
        invocation.priority,
        invocation.attempt,
        invocation.ordering_key or None,
        row.payload_size,
        *((None,) * 6 if final else present),
        int(row.begun) if state == 2 else None,
        row.code if final else None,
    )


def _deliveries(tables: MemoryTables) -> Iterator[tuple[Any, ...]]:
    for kept, due in ((tables.deliveries, True), (tables.given_up, False)):
        for delivery in kept.values():
            to = delivery.destination
            yield (
                delivery.delivery_id,
                delivery.key,
                delivery.condition,
                to.destination,
                to.param,
                delivery.due_at if due else None,
                delivery.tries,
            )


def _status_problems(database: sqlite3.Connection, world: World) -> Iterator[str]:
    """Yield followed invocations whose last entry of the status log is not their state."""
    last: dict[int, int] = {}
    for [value] in database.execute(_STREAM):
        last.update(msgspec.json.decode(value, type=list[tuple[int, int]]))
    last.update(database.execute(_ENTRIES).fetchall())
    for key, row in world.tables.rows.items():
        if row.invocation.function_id in world.followed:
            state = FINAL.get(row.state, 2 if row.state is State.RUNNING else 0)
            if last.get(key) != state:
                yield f"the last state of invocation {key} in the status log is {last.get(key)}, not {state}"
