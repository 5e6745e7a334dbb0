"""Errors of SQLite at the start, as errors that tell the user what to do; and the check of the database's files."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

from engine.errors import DataDirectoryUnusable, DiskFailing
from engine.errors.data_errors import file_errors, recover, unusable
from engine.storage.data_directory import check_entry

#: Free bytes below which a failed write is taken for a full disk. SQLite reports some of them as I/O errors.
_FULL = 1 << 16


def check_files(path: Path) -> None:
    """Raise DataDirectoryUnusable if the database, its write-ahead log, or the log's index cannot be opened as a file.

    SQLite's own errors do not tell a directory or a missing permission from other causes.
    """
    with file_errors(path):
        for end in ("", "-wal", "-shm"):
            check_entry(Path(f"{path}{end}"), stat.S_IFREG)


def not_opened(path: Path, error: sqlite3.Error) -> DataDirectoryUnusable:
    """Return the error for a database that SQLite cannot open, read or write at the start."""
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    reason = f"cannot be opened: {error} ({getattr(error, 'sqlite_errorname', 'no code')})"
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        return unusable(path, OSError(errno.ENOSPC, reason))
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM):
        return unusable(path, OSError(errno.EIO, reason))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return unusable(path, OSError(errno.EROFS, reason))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return DiskFailing(str(path), f"{reason}; stop the program that uses it, then start the engine again")
    return DataDirectoryUnusable(str(path), f"{reason}; {recover(path.parent)}")


def _is_full(folder: Path) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _FULL
