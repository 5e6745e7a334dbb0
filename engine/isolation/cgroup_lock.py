"""Whose an engine's group is: it is held by a lock while its engine lives, and swept up by others once nobody holds it.

An engine that is killed leaves its groups behind. If it never comes back, nobody ends them by its marker: they would
pile up on the host, and every start, which looks for its own leftovers among all groups, would take longer.

A lock is seen by those who have the same view of the hierarchy. So only groups beside one's own are swept, and not
those further away, which may be another container's.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.isolation.cgroup import children

PREFIX = "functiond-"  #: begins the name of every engine's group


def claim(folder: Path) -> int:
    """Make this group unless it is there, and hold it until the descriptor is closed, or this process dies.

    Who removes one holds it as well. Raises OSError.
    """
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
        with suppress(FileNotFoundError):  # someone has just swept it up
            return _locked(folder, fcntl.LOCK_SH)  # who sweeps has it for a moment only


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Likewise, while the block is entered."""
    fd = claim(folder)
    try:
        yield
    finally:
        os.close(fd)


def sweep(beside: Path) -> None:
    """Remove the groups of dead engines beside this one, but for those in which something still lives."""
    for folder in beside.parent.glob(PREFIX + "*"):
        with suppress(OSError):
            _remove_unclaimed(folder)


def _remove_unclaimed(folder: Path) -> None:
    fd = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        for child in children(folder):
            child.rmdir()
        folder.rmdir()
    finally:
        os.close(fd)


def _locked(folder: Path, how: int) -> int:
    """A descriptor of the group that is there now. Raises FileNotFoundError if it is another one, or none, by then."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        if not os.path.samestat(os.fstat(fd), os.stat(folder)):
            raise FileNotFoundError(errno.ENOENT, "it was removed, and made again", str(folder))
    except BaseException:
        os.close(fd)
        raise
    return fd
