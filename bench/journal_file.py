"""Access to the journal of a stopped engine: adding invocations before the engine starts, and reading results later."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from engine.model import Invocation
from engine.model.identity import Identity
from engine.storage import StorageOptions
from engine.storage.data_directory import locked
from engine.storage.sqlite.batch import SQL, Statement, with_sums
from engine.storage.sqlite.database import open_storage
from engine.storage.sqlite.invocation_writes import append_rows

_BATCH = 20_000
PAYLOAD = b'{"k": "' + b"x" * 191 + b'"}'


class Drained(Struct, frozen=True, kw_only=True):
    """Number of invocations that have ended, and the seconds from the first start to the last end, from the journal."""

    count: int
    seconds: float  #: time between the first start and the last end

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0


async def fill(directory: Path, function_id: int, rows: int) -> None:
    """Add ``rows`` invocations of a function to the journal, as if they had just been accepted."""
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            for batch in _batches(storage.identity, function_id, rows):
                await storage.writer.call(lambda db, batch=batch: _insert(db, batch))  # type: ignore[misc]


async def pad(directory: Path, megabytes: int) -> None:
    """Add rows of so many megabytes to the journal of a data directory, which is created if needed."""
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            store = storage.store("bench")
            for number in range(megabytes):
                await store.write("padding", {f"{number:06}-{row:03}": os.urandom(4000) for row in range(256)})


def _batches(identity: Identity, function_id: int, rows: int) -> Iterator[list[Invocation]]:
    for begin in range(0, rows, _BATCH):
        yield [waiting(identity, function_id) for _ in range(min(_BATCH, rows - begin))]


def waiting(identity: Identity, function_id: int) -> Invocation:
    now = time.time()
    key = identity.next_key(now)
    return Invocation(
        key=key,
        request_id=identity.request_id(key),
        function_id=function_id,
        payload=PAYLOAD,
        rank=now,
        first_due_at=now,
        due_at=now,
    )


def _insert(db: sqlite3.Connection, batch: Sequence[Invocation]) -> None:
    rows = [append_rows(invocation) for invocation in batch]
    for index, statement in enumerate((Statement.APPEND, Statement.PAYLOAD)):
        db.executemany(SQL[statement], with_sums(statement, [row[index][1] for row in rows]))
    size = sum(len(invocation.payload) for invocation in batch)
    db.execute(SQL[Statement.TALLY], (batch[0].function_id, len(batch), size))


# --- afterwards ---------------------------------------------------------------------------------------------


def results(directory: Path) -> list[bytes]:
    """Return the results that handlers returned for the invocations in the journal, in the order of acceptance."""
    with closing(_read(directory)) as db:
        return [row[0] for row in db.execute("SELECT body FROM result ORDER BY key")]


def drained(directory: Path) -> Drained:
    with closing(_read(directory)) as db:
        count, first, last = db.execute(
            "SELECT count(*), min(started), max(ended) FROM invocation WHERE state = 3"
        ).fetchone()
    return Drained(count=count, seconds=(last or 0.0) - (first or 0.0))


def _read(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{directory / 'journal.db'}?mode=ro", uri=True)
