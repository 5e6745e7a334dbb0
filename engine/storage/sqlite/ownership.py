"""Check of a journal against its data directory, which runs before anything in the directory is changed.

A new journal is created only if the directory has neither a write-ahead log with transactions nor code packages. If a
lost journal were replaced by a new one, SQLite would delete the log, and the engine would remove all code packages,
because no function refers to them. An application id in the file's header distinguishes a journal from a database of
another program. The journal's name, which is also stored with the code packages, distinguishes it from another journal.

Errors of SQLite at the start become errors that tell the user what to do.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

from msgspec import Struct

from engine.errors import RESTORE, DataDirectoryUnusable, DiskFailing, recover
from engine.errors.files import file_errors, unusable
from engine.model.identity import Identity
from engine.storage.data_directory import check_entry
from engine.storage.sqlite.damage import marked
from engine.storage.sqlite.log_checks import log_problem, lost_frames, mark_problem
from engine.storage.sqlite.wal_frames import HEADER

APPLICATION_ID = 0x666E6374  #: ASCII "fnct"; journals of older engines have none until their next start
_TABLES = frozenset({"meta", "invocation"})  #: tables of every journal
RECOVERED = "journal.db.recovered"  #: name of a recovered journal until the damaged one has another name
#: Free bytes below which a failed write is taken for a full disk. SQLite reports some of them as I/O errors.
_FULL = 1 << 16


class _View(Struct, frozen=True, kw_only=True):
    """Contents of a database file that identify its program and its journal."""

    application: int
    version: int
    tables: frozenset[str]
    name: str  #: name of the journal; empty until its first start has set it
    mark: int  #: see ``log_checks``


def check_journal(path: Path, packages_of: str | None) -> None:
    """Raise DataDirectoryUnusable if ``path`` is not the journal of its directory and must not be created there.

    ``packages_of`` is the journal's name that is stored with the code packages. An empty name means packages without a
    name, and None means that there are no packages. The function blocks the calling thread.
    """
    check_files(path)
    if damage := marked(path.parent):
        raise DataDirectoryUnusable(str(path.parent), damage)
    with file_errors(Path(f"{path}-wal")):
        problem = (lost_frames(path) or log_problem(path)) if _size(path) else ""
    if problem:
        raise DataDirectoryUnusable(f"{path}-wal", f"the write-ahead log cannot be used: {problem}; {RESTORE}")
    logged, name = is_logged(path), ""
    if _size(path):
        name = _name_of(path, logged)
    elif path.with_name(f"{path.name}.restoring").exists():
        problem = "a restore into it was not finished; empty the directory and restore again"
        raise DataDirectoryUnusable(str(path.parent), problem)
    elif path.with_name(RECOVERED).exists():
        problem = "a recovery of it was not finished; run `functiond recover` again"
        raise DataDirectoryUnusable(str(path.parent), problem)
    elif logged:
        raise _refused(path, "missing or empty, but journal.db-wal holds transactions")
    if packages_of is not None and not name:
        raise _refused(path, "missing or empty, but code/ holds packages")
    if packages_of and packages_of != name:
        raise _refused(path, f"this is journal {name}, but the packages in code/ belong to journal {packages_of}")


def is_logged(path: Path) -> bool:
    """Return whether the write-ahead log of a database has transactions."""
    return _size(Path(f"{path.resolve()}-wal")) > HEADER


def _name_of(path: Path, logged: bool) -> str:
    """Return the name of the journal, or an empty text for a database without tables.

    Raises DataDirectoryUnusable if the file cannot be opened or belongs to another program, or if the write-ahead log
    belongs to another database. ``logged`` means that the log has transactions.
    """
    name = ""
    try:
        for view in _views(path, logged):
            if view.application not in (0, APPLICATION_ID):
                raise _refused(path, f"a database of another program (application id {view.application})")
            if name not in ("", view.name):
                raise _refused(path, "journal.db-wal belongs to another database")
            name = view.name
    except sqlite3.DatabaseError as error:
        raise not_opened(path, error) from error
    if not view.tables >= _TABLES and (view.tables or view.version):
        if view.application == APPLICATION_ID:
            missing = ", ".join(sorted(_TABLES - view.tables))
            raise DataDirectoryUnusable(str(path), f"damaged, without the tables {missing}; {RESTORE}")
        tables = ", ".join(sorted(view.tables)[:5]) or "none"
        raise _refused(path, f"a database of another program (tables: {tables})")
    return name


def _views(path: Path, logged: bool) -> Iterator[_View]:
    """Yield the contents of the database without its write-ahead log, then with the log. Change neither file.

    Without transactions in the log (``logged`` is False), only one view is yielded.
    """
    alone = None
    with suppress(sqlite3.DatabaseError) if logged else nullcontext():
        alone = _view(path, "immutable=1")  # after an interrupted checkpoint, the file is readable only with its log
    if alone is not None:
        if problem := mark_problem(path, alone.mark):
            raise _refused(path, problem)
        yield alone
    if logged:
        yield _view(path, "mode=ro")


def _view(path: Path, mode: str) -> _View:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        [[application]] = database.execute("PRAGMA application_id")
        [[version]] = database.execute("PRAGMA user_version")
        tables = frozenset(name for [name] in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"))
        numbers = dict(database.execute("SELECT name, value FROM meta")) if tables >= _TABLES else {}
        name = _name(path, numbers["node"]) if "node" in numbers else ""
    return _View(application=application, version=version, tables=tables, name=name, mark=numbers.get("log", 0))


def _name(path: Path, node: object) -> str:
    if not isinstance(node, int):
        raise DataDirectoryUnusable(str(path), f"damaged, its number in the table meta is {node!r}; {RESTORE}")
    return Identity(node).name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _refused(path: Path, problem: str) -> DataDirectoryUnusable:
    advice = (
        "restore journal.db together with its journal.db-wal, or a backup with `functiond restore`,"
        " or start with an empty data directory"
    )
    return DataDirectoryUnusable(str(path), f"{problem}; {advice}")


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
