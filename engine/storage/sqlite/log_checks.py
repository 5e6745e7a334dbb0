"""Checks of the write-ahead log at the start, and marks by which a missing log, another one, and a cut one are found.

A torn end is normal after a crash, and damage before later commits is not, see ``wal_pages``.

After a kill, the log's index ``journal.db-shm`` names the log's frames and salts, until a connection is opened. A power
cut may leave an older index, so that only a log with the same salts is compared.

For copies without index, the database has a row ``log`` in ``meta``: the first salt of the log that the file needs, or
0. Each checkpoint copies the salt, and the next commit has 0, as a file with all commits therefore has. SQLite adds 1
to the salt each time that the log begins anew.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from mmap import mmap
from pathlib import Path
from struct import Struct

from engine.storage.sqlite.wal_frames import FRAME, HEADER, Frames
from engine.storage.sqlite.wal_pages import LogPages

# See https://sqlite.org/walformat.html: version, validity, bytes of a page, frames and salts; then frames copied.
_INDEX, _VERSION = Struct("=I8xB1xHI12x8s8x48xI"), 3_007_000
_SALT = Struct(">32xI")
_LAST_COMMIT = Struct("=16xI")  #: number of frames up to the last commit, in the index
ROW = "INSERT OR REPLACE INTO meta (name, value) VALUES ('log', ?)"


def checkpoint(database: sqlite3.Connection, index: mmap) -> bool:
    """Copy the pages of the log to the file. Return whether all were copied."""
    database.execute(ROW, _SALT.unpack_from(index))
    busy, _, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    database.execute(ROW, (0,))
    return not busy


def lost_frames(path: Path) -> str:
    """Return why the log of a database lacks frames that its index names, or an empty text."""
    file = Path(f"{path.resolve()}-shm")
    index = file.read_bytes()[: _INDEX.size] if file.exists() else b""
    if len(index) < _INDEX.size or index[:48] != index[48:96]:
        return ""
    version, valid, page, frames, salts, copied = _INDEX.unpack(index)
    if version != _VERSION or not valid or frames <= copied:
        return ""
    header, size = _log(path)
    if size <= HEADER:
        return f"it is missing or empty, but had {frames} frames"
    if header[16:24] == salts and size < HEADER + frames * (FRAME + page):
        return f"it ends before the last of its {frames} frames"
    return ""


def mark_problem(path: Path, mark: int) -> str:
    """Return why the log does not belong to a database whose file has ``mark``, or an empty text."""
    header, size = _log(path)
    if not mark or (size > HEADER and (int.from_bytes(header[16:20], "big") - mark) & 0xFFFFFFFF in (0, 1)):
        return ""
    found = "another one than" if size > HEADER else "missing or empty, but has commits"
    return f"journal.db-wal is {found} that journal.db needs"


def log_problem(path: Path) -> str:
    """Return why the write-ahead log at ``path`` must not be used, or an empty text. ``path`` is the database's.

    A log without transactions, or none at all, has no problem. The function blocks the calling thread. Raises OSError
    if the log cannot be read.
    """
    log = Path(f"{path.resolve()}-wal")
    if not log.exists():
        return ""
    with log.open("rb") as file:
        while file.read(1 << 20):  # SQLite takes a log that it cannot read for a damaged database
            pass
    try:
        last_commit = _last_commit(path)
    except sqlite3.DatabaseError:
        return ""  # the database itself cannot be read, which the next checks report
    behind = LogPages(log, last_commit + 1)
    if behind.problem or behind.frames is None or not last_commit:
        return behind.problem
    return _cut(behind.frames, path.stat().st_size, last_commit)


def _cut(frames: Frames, size: int, last_commit: int) -> str:
    """Return why the database cannot have ``size`` bytes, or an empty text. Later pages must be in the log."""
    pages, stored = frames.frame(last_commit).size, size // frames.page_size
    unused = (1 << 30) // frames.page_size + 1  # SQLite writes this page never
    logged = {frames.frame(number).page for number in range(1, last_commit + 1)} if stored < pages else ()
    lost = next((page for page in range(stored + 1, pages + 1) if not (page in logged or page == unused)), 0)
    words = "journal.db was cut, or the log is another one"
    return f"{words}: it ends after page {stored}, and page {lost} is not in the log" if lost else ""


def _last_commit(path: Path) -> int:
    """Return the number of frames up to the last commit that SQLite finds in the log."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        index = Path(f"{path.resolve()}-shm").read_bytes()[:48]
    return int(_LAST_COMMIT.unpack_from(index)[0])


def _log(path: Path) -> tuple[bytes, int]:
    """Return the header and the size of the log."""
    log = Path(f"{path.resolve()}-wal")
    if not log.exists():
        return b"", 0
    with log.open("rb") as file:
        return file.read(HEADER), file.seek(0, 2)
