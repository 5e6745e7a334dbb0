"""Data directory of an engine: its lock, its marker, and a ballast file for a full disk.

    lock  ballast  code/  logs/  tmp/  backups/  and files of the storage

The directory itself is locked, which excludes a second engine; the kernel unlocks it when the engine's process exits.
The file ``lock`` is locked too, because earlier versions lock only this file, and contains the owner's pid. The ballast
file reserves disk space, which its deletion frees for settlement and pruning.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from engine.errors import DataDirectoryLocked, DataDirectoryUnusable
from engine.errors.files import file_errors
from engine.isolation.machine import free_space, fsync_path

log = structlog.get_logger("functiond.journal")

#: Errors of syncing a folder that this user cannot read, or whose file system has no sync because it is read-only.
_NOT_SYNCED = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS, errno.ENOTSUP})
BACKUPS = "backups"  #: folder of backups, if the settings name no other
KEY = "key"  #: file with the key of secrets, if the settings name no other
_FOLDERS, _FILES = ("code", "logs", "tmp"), ("lock", "ballast", KEY)
_OTHERS = 0o077  #: access of other users


@contextmanager
def locked(directory: Path, *, create: bool = True) -> Iterator[None]:
    """Lock the data directory until the block ends or the process exits. Commands without an engine use it, too.

    With ``create``, the directory is created if needed. Raises DataDirectoryLocked if another process holds the lock,
    and DataDirectoryUnusable if the directory, or a file or folder in it, cannot be used.
    """
    with file_errors(directory):
        if create:
            _create(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with file_errors(directory):
            _lock(descriptor, directory)
            _check_entries(directory)
        with _owner_file(directory):
            yield
    finally:
        _unlock(descriptor)


@contextmanager
def _owner_file(directory: Path) -> Iterator[None]:
    """Hold the lock of the file ``lock``, with the pid of this process in it."""
    path = directory / "lock"
    with file_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with file_errors(path):
            _lock(descriptor, directory)
        with suppress(OSError):  # a full disk: the lock holds without the pid
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        _unlock(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _named_owner(directory / "lock") or _locking_process(descriptor)
        raise DataDirectoryLocked(str(directory), owner) from None


def _unlock(descriptor: int) -> None:
    """Close a descriptor and its lock, which a fork of this process would hold otherwise."""
    with suppress(OSError):  # of this process alone
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _named_owner(path: Path) -> int | None:
    """Return the pid in the file ``lock``, or None if the file is missing or has none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _locking_process(descriptor: int) -> int | None:
    """Return the pid of the process that the kernel names as owner of the lock, or None."""
    status = os.fstat(descriptor)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines]
    return next((int(line[4]) for line in fields if line[1] == "FLOCK" and line[5:6] == [file]), None)


def _create(directory: Path) -> None:
    """Create the directory and its parents, and sync the names of those that were missing to disk.

    The name of the directory itself is synced in any case: an earlier start may have been killed before it was.
    """
    missing = [folder for folder in directory.parents if not folder.exists()]
    with suppress(FileExistsError):  # not a directory, which opening it tells
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in (directory, *missing):
        try:
            fsync_path(folder.parent)
        except OSError as error:
            if error.errno not in _NOT_SYNCED:
                raise


def close_to_others(directory: Path) -> None:
    """Take all access of other users from the directory and the engine's files in it. They reach no folder in it then.

    Raises DataDirectoryUnusable if the directory belongs to another user and is open.
    """
    status, user = directory.stat(), os.geteuid()
    if status.st_mode & _OTHERS:
        shown = f"{stat.S_IMODE(status.st_mode):04o}"
        if user not in (0, status.st_uid):
            command = f"chown {user} {directory} && chmod 700 {directory}"
            problem = f"other users have access to it (mode {shown}), and it belongs to user {status.st_uid}"
            advice = f"run `{command}` as root, or name a folder in it by --data-dir"
            raise DataDirectoryUnusable(str(directory), f"{problem}: {advice}")
        directory.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
        log.warning("data directory was open to other users", mode=shown, now="0700")
    for path in (*(directory / name for name in _FILES), *directory.glob("journal.db*")):
        with suppress(FileNotFoundError, PermissionError):  # what others own here, they cannot reach any more
            if (mode := path.lstat().st_mode) & _OTHERS and not path.is_symlink():
                path.chmod(stat.S_IMODE(mode) & ~_OTHERS)


def _check_entries(directory: Path) -> None:
    """Raise OSError if a folder or file of the engine is of another type, or if this user has no access to it."""
    for name in _FOLDERS:
        check_entry(directory / name, stat.S_IFDIR)
    for name in _FILES:
        check_entry(directory / name, stat.S_IFREG)


def check_entry(path: Path, kind: int) -> None:
    """Raise OSError unless ``path`` is missing, or of this type (``stat.S_IFDIR`` or ``S_IFREG``) and accessible."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_IFMT(mode) != kind:
        code = errno.ENOTDIR if kind == stat.S_IFDIR else errno.EISDIR if stat.S_ISDIR(mode) else errno.EEXIST
        raise OSError(code, os.strerror(code) if code != errno.EEXIST else "Not a regular file", str(path))
    needed = os.R_OK | os.W_OK | (os.X_OK if kind == stat.S_IFDIR else 0)
    if not os.access(path, needed, effective_ids=True):
        code = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(path))


def marker_of(directory: Path, journal: str) -> str:
    """Return a name of the data directory, unique on this host. ``journal`` is the name of the engine's journal.

    The marker identifies the processes and cgroups of the directory's engines. It is in the names of the cgroups, and
    in an environment variable of the processes.

    The marker includes device and inode of the directory, which survive a move within the file system. A copy of the
    directory has another marker, so that an engine on the copy does not end processes of the original.
    """
    status = directory.stat()
    return f"{journal}-{status.st_dev:x}-{status.st_ino:x}"


class Ballast:
    """File of ``size`` bytes. Its deletion on a full disk frees space for settlement and pruning.

    No method raises an error, because the ballast helps a disk that may be failing already.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._path, self._size = directory / "ballast", size

    def take(self) -> None:
        """Write the file. Do nothing if less than four times its size is free, or if it cannot be written."""
        path, size = self._path, self._size
        try:
            if not size or (path.exists() and path.stat().st_size == size):
                return
            if free_space(path.parent) >= 4 * size:
                with path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            self.give_up()

    def give_up_if_full(self) -> None:
        """Delete the file if less than its size is free, so that a start has room to recover."""
        with suppress(OSError):
            if self._size and free_space(self._path.parent) < self._size:
                self.give_up()

    def give_up(self) -> bool:
        """Delete the file. Return whether that freed space."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("ballast not deleted", problem=str(error))
            return False
        return True
