"""Locks of the cgroups of engines. An engine holds the lock of its cgroup while it runs; an unlocked cgroup is stale.

An engine that is killed cannot remove its cgroups. If it is never started again, only another engine can remove them.
Otherwise stale cgroups would accumulate on the host, and each start, which searches all cgroups, would take longer.

Locks are visible only to processes with the same view of the cgroup file system. Therefore an engine removes only
siblings of its own cgroup. Cgroups elsewhere may belong to another container.
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
    """Create this cgroup unless it exists, and lock it. Raises OSError if the cgroup cannot be created or locked.

    The lock is held until the returned descriptor is closed or this process exits. A process must hold the lock of a
    cgroup in order to remove the cgroup.
    """
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
        with suppress(FileNotFoundError):  # another engine has just removed it
            return _locked(folder, fcntl.LOCK_SH)  # a process that removes it holds the lock only briefly


@contextmanager
def group_locked(folder: Path) -> Iterator[None]:
    """Create this cgroup unless it exists, and hold its lock until the block ends.

    Raises OSError if the cgroup cannot be created or locked.
    """
    fd = lock_group(folder)
    try:
        yield
    finally:
        os.close(fd)


def remove_stale_groups(beside: Path) -> None:
    """Remove the siblings of a cgroup whose engines have exited, except siblings that still contain processes."""
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
    """Lock the cgroup and return the descriptor that holds the lock.

    Raises FileNotFoundError if the cgroup was removed or replaced before it was locked.
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
