"""Problems with files of the engine, as errors that say what to do next: failed access, and access of other users."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import DataDirectoryUnusable, DiskFailing, SettingsError

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


def check_closed(file: Path, status: os.stat_result, shown: str) -> None:
    """Raise SettingsError unless ``file`` belongs to this user or root and is closed to others.

    ``shown`` is the begin of the message: the file, and why others must not read it.
    """
    if status.st_uid not in (os.geteuid(), 0):
        advice = f"change its owner to user {os.geteuid()}, which runs the engine"
        raise SettingsError(f"{shown} and belongs to user {status.st_uid}: {advice}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SettingsError(f"{shown} and others have access (mode {mode:04o}): chmod 600 {file}")
