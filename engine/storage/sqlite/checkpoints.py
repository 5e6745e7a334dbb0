"""Checkpoints of the write-ahead log: copies of its pages to the database file, after which the log starts anew.

SQLite's automatic checkpoint tells nobody when it fails: commits succeed, and the log grows until the disk is full.
Therefore the writer's thread runs the same checkpoint itself, after the same number of pages, and keeps its error.

The number of pages is in the index of the log, the file ``journal.db-shm``, which SQLite has mapped in memory anyway.
This process holds locks on that file, and closing any descriptor of it would drop them. The file is therefore closed
only after the connection.

SQLite deletes the log when the last connection is closed. After a failed checkpoint, the file may say that it needs the
log, see ``journal_check``. Another connection then stays open until the writing one is closed, so that the log stays.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
from pathlib import Path
from struct import Struct
from time import monotonic

import structlog

PAGES = 2000  #: pages in the log after which each commit is followed by a checkpoint
RETRY_PAGES, RETRY_AFTER = 250, 1.0  #: further pages or seconds after which a failed checkpoint is tried again

# Header of the index, documented in https://sqlite.org/walformat.html: version, and number of pages in the log.
_HEADER, _VERSION, _INDEX_VERSION, _COUNT = 48, Struct("=I"), 3_007_000, Struct("=16xI")

#: Row ``log`` of ``meta``, see ``journal_check``.
ROW = "INSERT OR REPLACE INTO meta (name, value) VALUES ('log', ?)"
_SALT = Struct(">32xI")

log = structlog.get_logger("functiond.journal")


class Checkpoints:
    """Checkpoints of one database. Call ``close`` when its connection is closed.

    ``begin`` and ``after_commit`` are called in the writer's thread, ``hold`` in any other, and the rest in the event
    loop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._descriptor = -1
        self._index: mmap.mmap | None = None
        self._watching = False
        self._other: sqlite3.Connection | None = None
        self._marked = True  #: the file needs the log, or may need it
        self._succeeded_at = monotonic()
        self._tried_at = 0.0
        self._retry_from = 0  # pages
        self.failure = ""  #: error of the last checkpoint; empty if it succeeded
        self._noted = ""

    def close(self) -> None:
        if self._other is not None:
            self._other.close()
        if self._index is not None:
            self._index.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def hold(self) -> None:
        """Let the log stay when the writing connection is closed. Call when that one is in use."""
        if self._other is None:
            self._other = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        self._other.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # opens the log

    def release(self) -> None:
        """Let the log be deleted unless the file needs it. Call before the writing connection is closed."""
        if self._other is not None and not self._marked:
            self._other.close()

    def watch(self) -> bool:
        """Open the index of the log. Return False if it has an unknown format, so that SQLite must run checkpoints.

        Raises OSError if the index cannot be opened. The connection must be in use before.
        """
        self._descriptor = os.open(f"{self._path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        self._index = mmap.mmap(self._descriptor, _HEADER, prot=mmap.PROT_READ)
        self._watching = _VERSION.unpack_from(self._index)[0] == _INDEX_VERSION
        if not self._watching:
            log.warning("index of the write-ahead log has an unknown format", sqlite=sqlite3.sqlite_version)
        return self._watching

    def begin(self, database: sqlite3.Connection) -> None:
        assert self._index is not None
        database.execute(ROW, (0,))  # a new log has no salts before its first commit
        self._checkpoint(database, self._index)

    def empty(self, database: sqlite3.Connection) -> None:
        """Copy the whole log to the file, and truncate it. Raises sqlite3.OperationalError if that is not possible."""
        if self._watching:
            self.begin(database)  # the file does not need the log any more, before it is gone
        busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the write-ahead log is in use")

    def _checkpoint(self, database: sqlite3.Connection, index: mmap.mmap) -> bool:
        self._marked = True
        complete = checkpoint(database, index)
        self._marked = False
        return complete

    def after_commit(self, database: sqlite3.Connection) -> None:
        """Run a checkpoint if the log is long enough. Readers that hold old pages back are no failure."""
        if self._index is None or not self._watching:
            return
        pages: int = _COUNT.unpack_from(self._index)[0]
        if pages < PAGES:
            return
        if self.failure and pages < self._retry_from and monotonic() < self._tried_at + RETRY_AFTER:
            return
        self._tried_at, self._retry_from = monotonic(), pages + RETRY_PAGES
        try:
            complete = self._checkpoint(database, self._index)
        except sqlite3.Error as error:
            self.failure = str(error)
            return
        self.failure = ""
        if complete:
            self._succeeded_at = monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint that succeeded, or since the start."""
        return monotonic() - self._succeeded_at

    @property
    def log_size(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0

    def note_change(self) -> bool:
        """Log a first failure, and the first success after failures. Return whether there was such a change."""
        failure = self.failure
        if bool(failure) == bool(self._noted):
            return False
        self._noted = failure
        if failure:
            log.error("journal cannot checkpoint", problem=failure, log_bytes=self.log_size)
        else:
            log.info("journal checkpoints again", log_bytes=self.log_size)
        return True


def checkpoint(database: sqlite3.Connection, index: mmap.mmap) -> bool:
    """Copy the pages of the log to the file. Return whether all were copied."""
    database.execute(ROW, _SALT.unpack_from(index))
    busy, _, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    database.execute(ROW, (0,))
    return not busy
