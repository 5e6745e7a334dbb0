"""Check of the write-ahead log at the start: a torn end is normal after a crash, damage before later commits is not.

Only frames behind the last commit are read, and those up to the first of another log.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from engine.storage.sqlite.wal_frames import Frames
from engine.storage.sqlite.wal_pages import LogPages

_LAST_COMMIT = 16  #: position of the number of frames up to the last commit, in the index of the log


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
    return int(struct.unpack_from("=I", index, _LAST_COMMIT)[0])
