"""Errors of the files in a data directory. The base class is in ``engine.errors.errors``.

FunctiondError
├── DataDirectoryUnusable
│   └── DiskFailing             a later start may succeed: the disk is full, or a read or write failed
├── Unavailable
│   └── PageDamaged             a page of the journal is damaged
└── StoredDataUnreadable        stored data that no start can read
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors.errors import DataDirectoryUnusable, FunctiondError, Unavailable

#: Advice if stored data are missing or damaged.
RESTORE = "restore a backup with `functiond restore`, or recover what can be read with `functiond recover`"


def recover(folder: Path | str = "DIR") -> str:
    """Return the advice if pages of the journal in a folder are damaged."""
    return f"run `functiond recover {folder}`"


_FULL = "free some space, then start the engine again"
_FAILING = "look for disk errors in the kernel's log, then start the engine again"
_MOVE = "move it away, then start the engine again"
_READ_ONLY = "look for disk errors in the kernel's log, and mount the file system for writing"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), then start the engine again",
    errno.EIO: _FAILING,
    errno.EROFS: _READ_ONLY,
    errno.EISDIR: _MOVE,
    errno.ENOTDIR: _MOVE,
    errno.EEXIST: _MOVE,
    errno.ENOMEM: "free some memory, then start the engine again",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then start the engine again",
}
_TRANSIENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


class DiskFailing(DataDirectoryUnusable):
    """Disk that is full or fails. The engine exits with the code that asks a supervisor for a new start."""


class PageDamaged(Unavailable):
    """Read or write that met a damaged page of the journal. Nothing was stored. ``problem`` is that of the storage."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"a page of the journal is damaged ({problem}); see /healthz for the next step", retry_after=5)


class StoredDataUnreadable(FunctiondError):
    """Stored data that are not as an engine wrote them. ``place`` names the table, and the row if it is known."""

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place} cannot be read: {problem}; {RESTORE}")


def is_file_problem(error: OSError) -> bool:
    """Return whether the error has a cause that ``unusable`` describes."""
    return error.errno in _ADVICE or error.errno in _FORBIDDEN


def unusable(path: str | Path, error: OSError) -> DataDirectoryUnusable:
    """Return the error that tells the user about ``error``, a failed access to ``path``, and what to do."""
    kind = DiskFailing if error.errno in _TRANSIENT else DataDirectoryUnusable
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    if error.errno in _FORBIDDEN:
        return kind(str(path), f"{reason}; give user {os.geteuid()} access to it, or choose another --data-dir")
    advice = _ADVICE.get(error.errno or 0)
    return kind(str(path), f"{reason}; {advice}" if advice else reason)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Raise DataDirectoryUnusable for an OSError in the block. ``path`` is named unless the error names a file."""
    try:
        yield
    except OSError as error:
        raise unusable(error.filename or path, error) from error
