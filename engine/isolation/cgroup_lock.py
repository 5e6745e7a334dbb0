"""Locks of engines' cgroups. An engine holds the lock of its group while it runs; unlocked groups are stale.

An engine that is killed cannot remove its groups. If it is never started again, nothing else removes them. Such
groups would accumulate on the host, and each start, which searches all groups, would take longer.

Locks are visible only to processes with the same view of the hierarchy. Therefore only sibling groups are removed,
not groups elsewhere, which may belong to another container.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.isolation.cgroup import children

PREFIX = "functiond-"  #: prefix of the name of every engine's group


def lock_group(folder: Path) -> int:
    """Create this group unless it exists, and lock it. Raises OSError.

    The lock is held until the returned descriptor is closed or this process exits. A process must hold the lock of a
    group to remove the group.
    """
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
        with suppress(FileNotFoundError):  # another engine has just removed it
            return _locked(folder, fcntl.LOCK_SH)  # a process that removes it holds the lock only briefly


@contextmanager
def group_locked(folder: Path) -> Iterator[None]:
    """Create this group unless it exists, and hold its lock until the block ends. Raises OSError."""
    fd = lock_group(folder)
    try:
        yield
    finally:
        os.close(fd)


def remove_stale_groups(beside: Path) -> None:
    """Remove the siblings of a group whose engines have exited, except siblings that still contain processes."""
    for folder in beside.parent.glob(PREFIX + "*"):
        with suppress(OSError):
            _remove_stale(folder)


def _remove_stale(folder: Path) -> None:
    fd = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        for child in children(folder):
            child.rmdir()
        folder.rmdir()
    finally:
        os.close(fd)


def _locked(folder: Path, operation: int) -> int:
    """Lock the group and return the descriptor that holds the lock.

    Raises FileNotFoundError if the group was removed or replaced meanwhile.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
        if not os.path.samestat(os.fstat(fd), os.stat(folder)):
            raise FileNotFoundError(errno.ENOENT, "the group was removed and created again", str(folder))
    except BaseException:
        os.close(fd)
        raise
    return fd
