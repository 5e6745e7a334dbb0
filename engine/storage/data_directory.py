"""Data directory of an engine: its lock, its marker, and a ballast file for a full disk.

    lock  ballast  code/  logs/  tmp/  and files of the storage

The locked file ``lock`` excludes a second engine; the kernel unlocks it when the engine's process exits. The ballast
file reserves disk space, which its deletion frees for settlement and pruning.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import DataDirectoryLocked, DataDirectoryUnusable


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Create the data directory if needed, and lock it until the block ends or the process exits.

    Raises DataDirectoryLocked if another engine holds the lock, and DataDirectoryUnusable if the directory cannot be
    created or opened.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirectoryUnusable(str(directory), f"cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).decode(errors="replace").strip()
            raise DataDirectoryLocked(str(directory), int(owner) if owner.isdigit() else None) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def marker_of(directory: Path, journal: str) -> str:
    """Return a name of the data directory, unique on this host. ``journal`` is the name of the engine's journal.

    The marker identifies the processes and cgroups of the directory's engines. It is in the names of the cgroups, and
    in an environment variable of the processes.

    The marker includes device and inode of the directory, which survive a move within the file system. A copy of the
    directory has another marker, so that an engine on the copy does not end processes of the original.
    """
    stat = directory.stat()
    return f"{journal}-{stat.st_dev:x}-{stat.st_ino:x}"


class Ballast:
    """File of ``size`` bytes. Its deletion on a full disk frees space for settlement and pruning."""

    def __init__(self, directory: Path, size: int) -> None:
        self._path, self._size = directory / "ballast", size

    def take(self) -> None:
        """Write the file. Do nothing if less than four times its size is free, or if it cannot be written."""
        path, size = self._path, self._size
        if not size or (path.exists() and path.stat().st_size == size):
            return
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < 4 * size:
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            path.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)
