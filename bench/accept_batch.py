"""Events accepted in batches over HTTP, compared with the same rows inserted into the same tables by SQLite alone.

Each batch is one commit with fsync in both. The function's only instance sleeps, so that events are queued and not
executed. SQLite alone runs before and after the requests that it is compared with, because a machine's speed varies.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from statistics import mean

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import pad, waiting
from bench.load import Job
from bench.machine import cpu_of
from bench.server import HELD, engine, load
from engine.http.api.batches import MOST_EVENTS, read_batch
from engine.model.identity import Identity
from engine.storage.sqlite.batch import SQL, Row, Statement, with_sums
from engine.storage.sqlite.invocation_writes import append_rows

SIZES = (100, 1_000)  #: events of a batch
EVENT = {"k": "x" * 191}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        for size in SIZES:
            progress(f"accept_batch: SQLite alone, {size:,} rows a commit")
            alone = [_inserted(size, options)]
            progress(f"accept_batch: {size:,} events a request")
            figures |= accepted(size, options)
            alone.append(_inserted(size, options))
            figures[f"SQLite alone {size:,}"] = mean(alone)
            figures[f"accept_batch / SQLite alone {size:,}"] = figures[f"accept_batch {size:,}"] / mean(alone)
        figures["decode 6 MiB"] = _decoded()
        yield figures


def _decoded() -> float:
    """Return the milliseconds of CPU that the largest batch takes to decode, if one of its events is invalid."""
    events: list[dict[str, object]] = [{"event": ["x" * 10] * 440, "key": str(number)} for number in range(MOST_EVENTS)]
    body = json.dumps({"events": [*events[1:], {"priority": 10}]}).encode()
    began = time.process_time()
    asyncio.run(read_batch({b"content-type": b"application/json"}, body))
    return (time.process_time() - began) * 1000


def accepted(size: int, options: Options) -> Round:
    with scratch(options) as directory, engine(directory, profile=options.profile) as server:
        path = server.deploy("held", HELD, instances=1) + "/invocations-async/batch"
        body = json.dumps({"events": [{"event": EVENT}] * size})
        job = Job(port=server.port, path=path, body=body, connections=1, seconds=options.seconds)
        before = cpu_of(server.pid)
        report = load(job)
        used, events = cpu_of(server.pid).since(before), report.requests * size
    return {
        f"accept_batch {size:,}": report.rate * size,
        f"p99 {size:,}": report.latency.p99,
        f"engine loop {size:,}": used.loop / events * 1e6,
        f"engine threads {size:,}": used.threads / events * 1e6,
    }


def _inserted(size: int, options: Options) -> float:
    """Return the rows that SQLite inserts per second. Only the transactions count, not the making of the rows."""
    with scratch(options) as directory:
        anyio.run(partial(pad, directory, 0))
        with closing(sqlite3.connect(directory / "journal.db", isolation_level=None)) as db:
            db.executescript("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000; PRAGMA cache_size = -16384")
            identity, done, seconds = Identity(0), 0, 0.0
            while seconds < options.seconds / 2:
                seconds += _insert(db, identity, size)
                done += size
    return done / seconds


def _insert(db: sqlite3.Connection, identity: Identity, size: int) -> float:
    """Insert the rows of ``size`` invocations in one transaction. Return its seconds."""
    rows = [dict(append_rows(waiting(identity, function_id=1))) for _ in range(size)]
    tables: dict[Statement, Sequence[Row]] = {
        statement: with_sums(statement, [row[statement] for row in rows])
        for statement in (Statement.APPEND, Statement.PAYLOAD, Statement.TALLY)
    }
    began = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    for statement, values in tables.items():
        db.executemany(SQL[statement], values)
    db.execute("COMMIT")
    return time.perf_counter() - began


def _figures(size: int) -> Sequence[Figure]:
    return (
        Figure(
            name=f"accept_batch / SQLite alone {size:,}",
            unit="ratio of rates",
            at_least=0.5 if size == MOST_EVENTS else None,  # the round trip is a larger part of a small batch
        ),
        Figure(name=f"accept_batch {size:,}", unit="events/s"),
        Figure(name=f"SQLite alone {size:,}", unit="rows/s"),
        Figure(name=f"p99 {size:,}", unit="ms"),
        Figure(name=f"engine loop {size:,}", unit="µs CPU/event"),
        Figure(name=f"engine threads {size:,}", unit="µs CPU/event"),
    )


SCENARIO = Scenario(
    name="accept_batch",
    title="POST …/invocations-async/batch, events of 200 bytes, answered when fsynced",
    figures=(
        *(figure for size in SIZES for figure in _figures(size)),
        Figure(name="decode 6 MiB", unit="ms CPU", at_most=50),
    ),
    rounds=rounds,
    note="numbers after a name are events of a batch; one connection, so that each batch is one commit",
)
