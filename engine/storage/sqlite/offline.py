"""Files of a storage that no engine has open: a stopped engine's data directory, or a backup.

Functions of this module block the calling thread. They change no file that they read.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from engine.errors import BackupFailed, DataDirectoryUnusable
from engine.isolation.machine import fsync_path
from engine.model import CodePackage, Dependency, Function
from engine.model.identity import Identity
from engine.storage.sqlite.damage import find_page
from engine.storage.sqlite.journal_check import check_journal, is_logged

_PAGES = 1024  #: pages that are copied at a time


@contextmanager
def read_only(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a folder for reading. A write-ahead log with transactions is read with it."""
    path = folder / "journal.db"
    mode = "mode=ro" if is_logged(path) else "immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)) as database:
        yield database


def is_copy(folder: Path) -> bool:
    """Return whether the database of a folder is one whole file, as a copy is, without a write-ahead log."""
    return (folder / "journal.db").is_file() and not is_logged(folder / "journal.db")


def copy_offline(directory: Path, folder: Path, on_progress: Callable[[int, int], None]) -> None:
    """Copy the database of a data directory, which the caller has ``locked``, into the empty ``folder``.

    ``on_progress`` is called with the bytes copied so far and all bytes. Raises DataDirectoryUnusable if there is no
    database or it belongs to another program, and BackupFailed if the copy cannot be written.
    """
    source, target = directory / "journal.db", folder / "journal.db"
    if not source.is_file():
        raise DataDirectoryUnusable(str(directory), "has no journal.db: name the data directory of an engine")
    check_journal(source, None)
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with read_only(directory) as database, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
            [[size]] = database.execute("PRAGMA page_size")
            database.backup(
                copy, pages=_PAGES, progress=lambda _, left, pages: on_progress((pages - left) * size, pages * size)
            )
            copy.execute("UPDATE meta SET value = 0 WHERE name = 'log'")  # which a kill at a checkpoint leaves
        fsync_path(target)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(str(folder), error) from error


def damaged_page(folder: Path) -> str:
    """Return words about the first damaged page of a journal; empty if there is none, or the disk fails."""
    with suppress(sqlite3.Error), read_only(folder) as database:
        return find_page(database, math.inf)
    return ""


def journal_name(folder: Path) -> str:
    """Return the name of the journal in a folder, which is part of all request ids.

    Raises DataDirectoryUnusable if the database cannot be read.
    """
    try:
        with read_only(folder) as database:
            [[node]] = database.execute("SELECT value FROM meta WHERE name = 'node'").fetchall()
        return Identity(node).name
    except (sqlite3.Error, ValueError) as error:
        raise DataDirectoryUnusable(str(folder), f"its journal has no name: {error}") from error


def packages_in(folder: Path) -> Mapping[str, CodePackage]:
    """Return the code packages that functions and dependencies in the database of a folder refer to, by their names.

    Raises DataDirectoryUnusable if the database cannot be read, or a name would be a path out of the folder.
    """
    try:
        with read_only(folder) as database:
            bodies = [body for [body] in database.execute("SELECT body FROM function_version")]
            others = [body for [body] in database.execute("SELECT body FROM resource WHERE kind = 'dependency'")]
        functions = [msgspec.json.decode(body, type=Function) for body in bodies]
        dependencies = [msgspec.json.decode(body, type=Dependency) for body in others]
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise DataDirectoryUnusable(str(folder), f"its functions cannot be read: {error}") from error
    packages = [function.code for function in functions]
    packages += [
        dependency.code
        for dependency in [*dependencies, *(used for function in functions for used in function.dependencies)]
    ]
    if bad := next((code.sha256 for code in packages if code.sha256 and not code.sha256.isalnum()), None):
        raise DataDirectoryUnusable(str(folder), f"its functions name the code package {bad!r}, which is no SHA-256")
    return {code.sha256: code for code in packages if code.sha256}
