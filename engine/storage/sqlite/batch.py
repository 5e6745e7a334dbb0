"""Batch of write requests, and the connection that applies a batch in one transaction on the writer's thread.

If SQLite refuses a row, the batch is rolled back and applied again with a savepoint for each request. Then only the
request of that row fails. The same holds for a request that meets a damaged page.

A disk error is not retried here but reported to the writer as a ``WriteFailure``. If COMMIT itself failed, the failure
is ambiguous: the rows may still appear after a crash.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import chain
from typing import Any, NamedTuple
from zlib import crc32

from msgspec.msgpack import encode

from engine.errors import OutcomeUnknown, PageDamaged
from engine.storage.sqlite.checksums import FIXED, MOVED, RARE, payload_sum, result_sum, row_sum
from engine.storage.sqlite.damage import is_damage

Row = tuple[Any, ...] | list[Any]


class Statement(IntEnum):
    """SQL statements for the writes of each invocation and for the fence, in the order in which a batch runs them."""

    FENCE = 0
    APPEND = 1
    PAYLOAD = 2
    START = 3
    COUNT = 4
    FINISH = 5
    RETRY = 6
    RESULT = 7
    ATTEMPT = 8
    UNTALLY_ATTEMPTS = 9
    DROP_ATTEMPTS = 10
    ADD_DELIVERY = 11
    TALLY = 12
    STATUS = 13
    RELEASE = 14
    RARE = 15
    RELEASE_MORE = 16


_OF_KEY = "FROM invocation INDEXED BY ordering WHERE function_id = ?1 AND ordering_key = ?2"
_HELD = f"{_OF_KEY} AND state = -1 AND state < 3"
_RELEASED = (
    "UPDATE invocation SET state = 1, due = CASE begun WHEN 1 THEN due ELSE min(due, ?3) END,"
    " sum = CASE WHEN begun = 1 OR due <= ?3 THEN sum END WHERE key"
)
SQL: dict[Statement, str] = {
    Statement.FENCE: (
        "INSERT INTO meta (name, value) VALUES ('fence', ?) ON CONFLICT (name) DO UPDATE SET value = value + 1"
    ),
    Statement.APPEND: (f"INSERT INTO invocation (state, {MOVED}, {FIXED}, sum) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"),
    Statement.PAYLOAD: "INSERT INTO payload (key, body, sum) VALUES (?,?,?)",
    Statement.START: "UPDATE invocation SET state = 2, attempt = ?, started = ?, begun = ? WHERE key = ?",
    # Counts the end of a member. A batch whose commit was in doubt is written again: an end must not count twice.
    Statement.COUNT: (
        "UPDATE call_group SET done = done + 1, failed = failed + ?1, state = CASE WHEN state = 0"
        " AND (done + 1 >= total OR (need_all AND ?1)) THEN decided() ELSE state END"
        " WHERE key = (SELECT grp FROM call JOIN invocation USING (key) WHERE key = ?2 AND (state < 3 OR ?3))"
    ),
    Statement.FINISH: (
        "UPDATE invocation SET state = ?, failures = ?, started = ?, ended = ?, code = ?, message = ?, attempt = ?,"
        " sum = sum + ?9 WHERE key = ?8"
    ),
    Statement.RETRY: (
        "UPDATE invocation SET state = 1, rank = ?, due = ?, attempt = ?, failures = ?, code = ?, message = ?,"
        " sum = sum + ?8 WHERE key = ?7"
    ),
    Statement.RESULT: "INSERT OR REPLACE INTO result (key, body, log, sum) VALUES (?,?,?,?)",
    Statement.ATTEMPT: (
        "INSERT OR REPLACE INTO attempt (key, attempt, started, ended, code, message, log, decision, progress, note,"
        " instance) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
    ),
    Statement.UNTALLY_ATTEMPTS: (
        "UPDATE tally SET size = size - (SELECT coalesce(sum(length(log)), 0) FROM attempt WHERE key = ?1 AND"
        " attempt <= ?2) WHERE function_id IN (0, -(SELECT function_id FROM invocation WHERE key = ?1))"
    ),
    Statement.DROP_ATTEMPTS: "DELETE FROM attempt WHERE key = ? AND attempt <= ?",
    Statement.ADD_DELIVERY: (
        "INSERT INTO owed (key, function_id, condition, destination, param, due) VALUES (?,?,?,?,?,?)"
    ),
    Statement.RELEASE: (  # see ``invocation_writes``
        f"{_RELEASED} = (SELECT key {_HELD} ORDER BY key LIMIT 1)"
        f" AND NOT EXISTS (SELECT 1 {_OF_KEY} AND state >= 0 AND state < 3)"
    ),
    Statement.RELEASE_MORE: (  # of as many as there is room for: those before the first for which there is none
        f"{_RELEASED} IN (SELECT key {_HELD} AND key < ifnull((SELECT key {_HELD} ORDER BY key LIMIT 1"
        f" OFFSET ?4 - (SELECT count(*) {_OF_KEY} AND state >= 0 AND state < 3)), 9e99))"
    ),
    Statement.TALLY: (
        "INSERT INTO tally (function_id, rows, size) VALUES (?,?,?)"
        " ON CONFLICT (function_id) DO UPDATE SET rows = rows + excluded.rows, size = size + excluded.size"
    ),
    Statement.RARE: f"UPDATE invocation SET ({RARE}, begun, sum) = (?1, ?2, ?3, ?4, ?5, sum + ?7) WHERE key = ?6",
    Statement.STATUS: "INSERT INTO status_log (target_id, state, at, code, message, key) VALUES (?,?,?,?,?,?)",
}

#: Rows of one INSERT, largest first. Each execution releases and takes the GIL several times.
_INSERT_SIZES = (256, 32, 8, 1)


def _insert_sql(statement: Statement, rows: int) -> str:
    head, values = SQL[statement].split("VALUES ")
    return f"{head}VALUES {','.join([values] * rows)}"


_INSERTS = {
    statement: {rows: _insert_sql(statement, rows) for rows in _INSERT_SIZES}
    for statement in (Statement.APPEND, Statement.PAYLOAD, Statement.RESULT, Statement.STATUS)
}

#: Primary result codes of SQLite for errors of the disk or the file. Other codes are errors of a row.
_DISK_ERRORS = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class WriteRequest:
    """Rows for prepared statements, stored completely or not at all."""

    __slots__ = ("done", "error", "retry_until_stored", "rows", "value")

    def __init__(
        self,
        rows: tuple[tuple[Statement, Row], ...],
        done: Callable[[WriteRequest], None] | None = None,
        retry_until_stored: bool = False,  # positional, because keywords double the time of this call
    ) -> None:
        self.rows = rows
        self.done = done  #: called in the event loop after the commit or failure, with ``error`` or ``value`` set
        self.retry_until_stored = retry_until_stored  #: keep in memory through disk failures, and store later
        self.error: BaseException | None = None
        self.value: Any = None


class CallRequest(WriteRequest):
    """Request to call one function that reads or writes. Its writes are stored completely or not at all."""

    __slots__ = ("call", "isolated")

    def __init__(
        self,
        call: Callable[[WritingConnection], Any],
        done: Callable[[WriteRequest], None],
        isolated: Callable[[WritingConnection], Any] | None = None,
    ) -> None:
        super().__init__((), done)
        self.call = call  #: called after all rows of the batch are written, inside the transaction; returns ``value``
        #: called instead of ``call``, outside a transaction, if ``call`` met a damaged page
        self.isolated = isolated


class WriteFailure(NamedTuple):
    """Disk error of a batch. If ``ambiguous``, COMMIT itself failed, and the rows of the batch may be on disk."""

    error: Exception
    ambiguous: bool

    @property
    def fsync(self) -> bool:
        return getattr(self.error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_FSYNC


class Batch(list[WriteRequest]):
    def __init__(self, items: Iterable[WriteRequest] = ()) -> None:
        super().__init__(items)
        self.failure: WriteFailure | None = None
        self.finished = threading.Event()
        self.decided = False  #: a group was decided
        self.after_commit: Callable[[sqlite3.Connection], None] | None = None  #: called after a successful COMMIT
        self.syncing = False  #: the writer's thread is in COMMIT, where it waits for the disk without the GIL


class Visit(list[Any]):
    """Function that is called with the connection in its thread, outside a transaction; then its result."""

    def __init__(self, function: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__()
        self.function = function
        self.value: Any = None


class WritingConnection(sqlite3.Connection):
    """Only connection that writes to the database. ``executemany`` applies a ``Batch`` given in place of parameters.

    A ``Visit`` in place of parameters is a function that is called outside a transaction.

    ``damaged`` returns the error of a request that met a damaged page. It gets the error of SQLite.
    """

    def __init__(
        self,
        *arguments: Any,
        damaged: Callable[[Exception], Exception] = lambda error: PageDamaged(str(error)),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._damaged = damaged
        self._decided = False
        self.create_function("decided", 0, self._decide)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        if isinstance(parameters, Visit):
            parameters.value = parameters.function(self)
            return self.cursor()
        if not isinstance(parameters, Batch):
            return super().executemany(sql, parameters)
        try:
            self._apply(parameters)
            if parameters.failure is None and parameters.after_commit is not None:
                parameters.after_commit(self)
        finally:
            parameters.decided, self._decided = self._decided, False
            parameters.finished.set()
        return self.cursor()

    def _decide(self) -> int:
        """Return the state of a group that is decided, for ``COUNT``, and note that there is one."""
        self._decided = True
        return 1

    def _apply(self, batch: Batch) -> None:
        committing = False
        try:
            self.execute("BEGIN IMMEDIATE")
            self.run_rows(chain.from_iterable(request.rows for request in batch))
            for request in batch:
                if isinstance(request, CallRequest):
                    self._run_alone(request)
            committing = batch.syncing = True
            self.execute("COMMIT")
        except Exception as error:  # includes values that Python cannot bind: the transaction must not stay open
            self.rollback()
            if committing or (_is_disk_error(error) and not is_damage(error)):
                batch.failure = WriteFailure(error, ambiguous=committing)
            else:
                self._apply_one_by_one(batch)

    def _apply_one_by_one(self, batch: Batch) -> None:
        damaged: dict[WriteRequest, Exception] = {}
        while not self._apply_undamaged(batch, damaged):
            pass
        if batch.failure is None:
            for request, error in damaged.items():
                self._apply_damaged(request, error)

    def _apply_undamaged(self, batch: Batch, damaged: dict[WriteRequest, Exception]) -> bool:
        """Apply all requests except those in ``damaged``. If another one meets a damaged page, add it, return False.

        SQLite refuses all further writes of a transaction that has met a damaged page.
        """
        committing, current = False, None
        try:
            self.execute("BEGIN IMMEDIATE")
            for request in batch:
                if request not in damaged:
                    current = request
                    self._run_alone(request)
            committing = batch.syncing = True
            self.execute("COMMIT")
        except Exception as error:
            self.rollback()
            if is_damage(error) and current is not None and not committing:
                damaged[current] = error
                return False
            batch.failure = WriteFailure(error, ambiguous=committing)
        return True

    def _apply_damaged(self, request: WriteRequest, error: Exception) -> None:
        request.error = self._damaged(error)
        if not isinstance(request, CallRequest) or request.isolated is None:
            return
        try:
            request.value, request.error = request.isolated(self), None
        except Exception as problem:
            self.rollback()
            if not is_damage(problem):
                request.error = OutcomeUnknown(str(problem)) if _is_disk_error(problem) else problem

    def run_rows(self, rows: Iterable[tuple[Statement, Row]]) -> None:
        """Run statements with their rows, in the order of ``Statement``, and several inserts by each execution."""
        by_statement: list[list[Row]] = [[] for _ in Statement]
        for statement, row in rows:
            by_statement[statement].append(row)
        for statement, values in zip(Statement, by_statement, strict=True):
            if not values:
                continue
            if statement in _INSERTS:
                self._insert(statement, with_sums(statement, values))
            else:
                super().executemany(SQL[statement], with_sums(statement, values))

    def _insert(self, statement: Statement, rows: Sequence[Row]) -> None:
        begin = 0
        for together, sql in _INSERTS[statement].items():
            while len(rows) - begin >= together:
                self.execute(sql, list(chain.from_iterable(rows[begin : begin + together])))
                begin += together

    def _run_alone(self, request: WriteRequest) -> None:
        """Run one request of a batch inside a savepoint, so that its error does not undo the other requests.

        Errors of the disk and of damaged pages are raised. Any other error is stored in ``request.error``.
        """
        self.execute("SAVEPOINT alone")
        try:
            if isinstance(request, CallRequest):
                request.value = request.call(self)
            else:
                self.run_rows(request.rows)
            request.error = None
        except Exception as error:
            if _is_disk_error(error) or is_damage(error):
                raise  # SQLite may have ended the transaction
            request.error = error
            self.execute("ROLLBACK TO alone")
        self.execute("RELEASE alone")


def with_sums(statement: Statement, rows: Sequence[Row]) -> Sequence[Row]:
    """Append the checksum to each row of a payload, result or invocation, and add up the rows of backlog counters.

    Counts of ended invocations are under the negative id of their function, and are added under 0, too. Rows of other
    statements are returned unchanged. Checksums are computed when the rows are written, so that they take no time from
    the event loop.
    """
    if statement is Statement.PAYLOAD:
        return [(key, body, payload_sum(key, body)) for key, body in rows]
    if statement is Statement.RESULT:
        return [(key, body, log, result_sum(key, body, log)) for key, body, log in rows]
    if statement is Statement.APPEND:
        return [(*row, crc32(encode(row[1:4])) + crc32(encode(row[4:]))) for row in rows]  # as ``row_sum``
    if statement is Statement.RARE:
        return [(*row, row_sum(*row[:4])) for row in rows]
    if statement is Statement.FINISH:
        return [(*row, row_sum(*row[:6])) for row in rows]
    if statement is Statement.RETRY:  # behind the values of SQL: those of ``MOVED`` before
        return [(*row[:7], row_sum(*row[:3]) - row_sum(*row[7:])) for row in rows]
    if statement is Statement.TALLY:
        sums: dict[int, tuple[int, int]] = {}
        for function_id, count, size in rows:
            for counted in (function_id, 0) if function_id < 0 else (function_id,):
                earlier = sums.get(counted, (0, 0))
                sums[counted] = earlier[0] + count, earlier[1] + size
        return [(function_id, *both) for function_id, both in sums.items()]
    return rows


def _is_disk_error(error: BaseException) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _DISK_ERRORS
