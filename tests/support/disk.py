"""Disk that fails when a test wants it, below a real SQLite connection."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from msgspec import Struct, field

from engine.storage.sqlite.batch import WritingConnection

FULL, WRITE, FSYNC = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC


class Disk(Struct):
    """Faults in the writer's thread, for the first ``times`` statements that begin with ``statement``."""

    statement: str = "COMMIT"
    code: int = 0
    times: int = 0  #: number of faults; negative: no limit
    met: int = 0
    busy: threading.Event = field(default_factory=threading.Event)  #: set once a slow statement runs
    answer: threading.Event | None = None  #: COMMIT waits for this event
    patient: bool = True  #: False after a wait for ``answer`` timed out

    def fail(self, code: int, statement: str = "COMMIT", *, times: int = -1) -> None:
        self.statement, self.code, self.times = statement, code, times

    def heal(self) -> None:
        self.times = 0

    def check(self, sql: str) -> None:
        if self.answer is not None and sql == "COMMIT":
            self.busy.set()
            self.patient = self.answer.wait(30)
        if self.times and sql.startswith(self.statement):
            self.times -= 1
            self.met += 1
            error = sqlite3.OperationalError("the disk failed")
            error.sqlite_errorcode = self.code
            raise error


def connection_on(disk: Disk) -> type[WritingConnection]:
    class FailingConnection(WritingConnection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            disk.check(sql)
            return super().execute(sql, *values)

    return FailingConnection
