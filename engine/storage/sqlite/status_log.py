"""Status log on disk. The journal adds its rows to the requests that change states."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from engine.model import Invocation, Outcome, State
from engine.model.identity import Identity
from engine.model.signal import Signal
from engine.protocols import Settlement, StatusEntry, StatusLogStatistics, StatusTarget
from engine.protocols.status_log import LONGEST_MESSAGE, MOST_ENTRIES
from engine.storage.sqlite.batch import SQL, Row, Statement
from engine.storage.sqlite.rows import POISONED, READY, RUNNING, SHOWN, STORED
from engine.storage.sqlite.stores import put_rows
from engine.storage.sqlite.writer import Writer

#: Row for the present state of a stored invocation, if its version is followed.
_COPY = (
    "INSERT INTO status_log (target_id, state, at, code, message, key) SELECT target_id, ?, ?, ?, ?, key"
    " FROM invocation JOIN status_target USING (function_id, version) WHERE enabled = 1 AND {where}"
)
_PUT_TARGET = (
    "INSERT INTO status_target (function_id, version, enabled, body) VALUES (?,?,1,?)"
    " ON CONFLICT (function_id, version, body) DO UPDATE SET enabled = 1"
)
#: The oldest entries as JSON. A row for each would release and take the GIL as often.
_OLDEST = (
    "SELECT json_group_array(json_array(entry_id, target_id, key, state, at, code, message)) FROM"
    " (SELECT * FROM status_log ORDER BY entry_id LIMIT ?)"
)
_Stored = tuple[int, int, int, int, float, int, str]  #: columns of ``_OLDEST``
#: Deleted functions whose invocations have all ended.
_GONE = (
    "function_id NOT IN (SELECT function_id FROM function)"
    " AND function_id NOT IN (SELECT function_id FROM tally WHERE rows > 0)"
)


class StatusRows:
    """Rows of the status log that the journal adds to its requests. There are none for versions that are not followed.

    ``targets`` is empty while no version is followed. Callers test it first, so that nothing else is done then.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.added: Signal[[]] = Signal()
        self.targets: dict[tuple[int, str], int] = {}  #: ids by function id and version
        self.waiting = self.dropped = 0
        self.announced = False
        self._now = now

    # --- in the event loop ----------------------------------------------------------------------------------

    def accepted(self, invocation: Invocation) -> tuple[tuple[Statement, Row], ...]:
        return self._row(invocation, READY, invocation.accepted_on_clock)

    def started(self, invocation: Invocation, started_at: float) -> tuple[tuple[Statement, Row], ...]:
        return self._row(invocation, RUNNING, started_at)

    def ended(self, settlement: Settlement) -> tuple[tuple[Statement, Row], ...]:
        outcome, state = settlement.outcome, STORED.get(settlement.state, READY)
        return self._row(settlement.invocation, state, outcome.ended_at, outcome.code, outcome.message)

    def announce(self, function_ids: Iterable[int]) -> None:
        """Announce entries that a call in the writer's thread adds, if versions of these functions are followed."""
        if self.targets and not {function_id for function_id, _ in self.targets}.isdisjoint(function_ids):
            self.added()

    def _row(
        self, invocation: Invocation, state: int, at: float, code: int = 0, message: str = ""
    ) -> tuple[tuple[Statement, Row], ...]:
        target = self.targets.get((invocation.function_id, invocation.version))
        if target is None or (self.waiting >= MOST_ENTRIES and not self._admit()):
            return ()
        self.waiting += 1
        if not self.announced:  # further entries are read together with the announced one
            self.announced = True
            self.added()
        return ((Statement.STATUS, (target, state, at, code, message and message[:LONGEST_MESSAGE], invocation.key)),)

    # --- in the writer's thread, inside a transaction --------------------------------------------------------

    def insert_accepted(self, db: sqlite3.Connection, invocations: Iterable[Invocation]) -> None:
        """Add the first entries of invocations that the same transaction stores."""
        rows = [
            (target, READY, invocation.accepted_on_clock, 0, "", invocation.key)
            for invocation in (invocations if self.targets else ())
            if (target := self.targets.get((invocation.function_id, invocation.version))) is not None and self._admit()
        ]
        self.waiting += len(rows)
        if rows:
            db.executemany(SQL[Statement.STATUS], rows)

    def insert_ends(self, db: sqlite3.Connection, keys: Sequence[int], state: State, outcome: Outcome) -> None:
        """Add entries about invocations that the same transaction ended without an attempt."""
        if self.targets:
            end = (STORED[state], outcome.ended_at, outcome.code, outcome.message[:LONGEST_MESSAGE])
            where = "key IN (SELECT value FROM json_each(?))"
            self._copy(db, where, (*end, msgspec.json.encode(keys).decode()))

    def insert_released(self, db: sqlite3.Connection, invocations: Iterable[Invocation]) -> None:
        """Add entries about running invocations that the same transaction then returns to WAIT."""
        for invocation in invocations:
            if self.targets and (invocation.function_id, invocation.version) in self.targets:
                self._copy(db, f"key = ? AND state = {RUNNING}", (READY, self._now(), 0, "", invocation.key))

    def insert_revived(self, db: sqlite3.Connection) -> None:
        """Add entries about running invocations that the same transaction then returns to WAIT after a crash."""
        if self.targets:
            self._copy(db, f"state = {RUNNING} AND NOT {POISONED}", (READY, self._now(), 0, ""))

    def _copy(self, db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> None:
        if self.waiting >= MOST_ENTRIES:
            self.dropped += 1
        else:
            self.waiting += db.execute(_COPY.format(where=where), values).rowcount

    def _admit(self) -> bool:
        """Return whether one more entry may wait. Count it as dropped otherwise."""
        if self.waiting < MOST_ENTRIES:
            return True
        self.dropped += 1
        return False


class SQLiteStatusLog:
    def __init__(self, writer: Writer, identity: Identity, rows: StatusRows) -> None:
        self._writer, self._identity, self._rows = writer, identity, rows
        self._targets: dict[int, StatusTarget] = {}  #: also those that are not followed any more

    @property
    def added(self) -> Signal[[]]:
        return self._rows.added

    async def load(self) -> Collection[int]:
        def load(db: sqlite3.Connection) -> tuple[list[tuple[int, int, str]], int]:
            db.execute(f"UPDATE status_target SET enabled = 0 WHERE {_GONE}")
            db.execute(
                "DELETE FROM status_target WHERE enabled = 0 AND target_id NOT IN (SELECT target_id FROM status_log)"
            )
            return db.execute("SELECT target_id, enabled, body FROM status_target").fetchall(), _waiting(db)

        rows, self._rows.waiting = await self._writer.call(load)
        self._targets = {target_id: msgspec.json.decode(body, type=StatusTarget) for target_id, _, body in rows}
        followed = {target_id: self._targets[target_id] for target_id, enabled, _ in rows if enabled}
        self._rows.targets = {(target.function_id, target.version): target_id for target_id, target in followed.items()}
        return {target.function_id for target in followed.values()}

    async def follow(self, function_id: int, targets: Sequence[StatusTarget]) -> None:
        known = {
            self._targets[target_id] for (owner, _), target_id in self._rows.targets.items() if owner == function_id
        }
        if known == {*targets}:
            return
        rows = [(target.function_id, target.version, msgspec.json.encode(target).decode()) for target in targets]

        def write(db: sqlite3.Connection) -> list[tuple[int, str]]:
            db.execute("UPDATE status_target SET enabled = 0 WHERE function_id = ? AND enabled = 1", (function_id,))
            db.executemany(_PUT_TARGET, rows)
            followed = "SELECT target_id, body FROM status_target WHERE function_id = ? AND enabled = 1"
            return db.execute(followed, (function_id,)).fetchall()

        stored = {
            target_id: msgspec.json.decode(body, type=StatusTarget)
            for target_id, body in await self._writer.call(write)
        }
        self._targets.update(stored)
        others = {key: target_id for key, target_id in self._rows.targets.items() if key[0] != function_id}
        self._rows.targets = others | {
            (target.function_id, target.version): target_id for target_id, target in stored.items()
        }

    async def read(self, rows: int) -> Sequence[StatusEntry]:
        def read(db: sqlite3.Connection) -> str:
            [text] = db.execute(_OLDEST, (rows,)).fetchone()
            return str(text)

        self._rows.announced = False  # before the read, which does not see entries that are submitted during it
        entries = msgspec.json.decode(await self._writer.call(read), type=list[_Stored])
        if not entries:
            self._rows.waiting = 0  # also counts entries whose write was refused
        ids = {key: self._identity.request_id(key) for _, _, key, *_ in entries}
        return [
            StatusEntry(
                entry_id=entry_id,
                target=self._targets[target_id],
                request_id=ids[key],
                state=SHOWN[state],
                at=at,
                code=code,
                message=message,
            )
            for entry_id, target_id, key, state, at, code, message in entries
        ]

    async def hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        def write(db: sqlite3.Connection) -> int:
            put_rows(db, plugin, table, put)
            db.execute("DELETE FROM status_log WHERE entry_id <= ?", (until,))
            return _waiting(db)

        self._rows.waiting = await self._writer.call(write)

    def statistics(self) -> StatusLogStatistics:
        return StatusLogStatistics(waiting=self._rows.waiting, dropped=self._rows.dropped)


def _waiting(db: sqlite3.Connection) -> int:
    """Return the number of entries, which have growing ids and are removed from the oldest."""
    first, last = db.execute("SELECT min(entry_id), max(entry_id) FROM status_log").fetchone()
    return 0 if first is None else int(last - first + 1)
