"""Cache of installed dependencies in the user's cache directory, bounded in size.

An entry is a folder, renamed to its key when it is complete, and locked while it is read: processes see it whole or not
at all. Entries that were not used for longest are removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import UsageError

LIMIT = 2 << 30  #: bytes of all entries
_IN_USE = 600.0  #: seconds since its last use in which an entry is not removed
_ABANDONED = 86_400.0  #: seconds after which an incomplete entry is removed
_NEW = ".new-"

#: Fills the folder of an entry.
Fill = Callable[[Path], None]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "functiond", "dependencies")


@contextmanager
def entry(key: str, fill: Fill) -> Iterator[Path]:
    """Yield the folder of a key, filled now unless it exists. Without a key, it is removed afterwards."""
    folder = _own_folder()
    if not key:
        with _new_folder(folder) as new:
            fill(new)
            yield new
        return
    while (descriptor := _opened(folder / key)) is None:
        with _new_folder(folder) as new:
            fill(new)
            _keep(new, folder / key)
        _prune(folder)
    try:
        os.utime(folder / key)
        yield folder / key
    finally:
        os.close(descriptor)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=_NEW, dir=folder, ignore_cleanup_errors=True) as new:
        yield Path(new)


def has(key: str) -> bool:
    return bool(key) and (cache_folder() / key).is_dir()


def forget(key: str) -> None:
    """Remove the entry of a key, if there is one."""
    if has(key):
        _remove(cache_folder() / key, wait=True)


def _own_folder() -> Path:
    """Return the cache folder, which is made if it does not exist.

    Raises UsageError if it cannot be used, or others may write it: their packages would run as functions of the user.
    """
    folder, problem = cache_folder(), ""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if any(path.stat().st_uid != os.geteuid() or path.stat().st_mode & 0o022 for path in (folder.parent, folder)):
            problem = "it belongs to another user, or others may write it: remove it"
    except OSError as error:
        problem = f"{error.strerror}: correct it"
    if problem:
        raise UsageError(f"cannot use the cache {folder}: {problem}, or set XDG_CACHE_HOME to a folder of your own")
    return folder


def _opened(kept: Path, lock: int = fcntl.LOCK_SH) -> int | None:
    """Open and lock an entry until it is closed. Return None if it does not exist, or others have it locked."""
    try:
        descriptor = os.open(kept, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, lock)
        if os.path.samestat(os.fstat(descriptor), kept.stat()):  # else replaced meanwhile
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # this file system cannot lock folders
        return descriptor
    os.close(descriptor)
    return None


def _keep(new: Path, kept: Path) -> None:
    new.chmod(0o700)
    try:
        new.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise
        return  # another process was faster
    new.mkdir()  # the context manager removes it


def _prune(folder: Path) -> None:
    now, total = time.time(), 0
    for changed, path in sorted(_by_change(folder), reverse=True):
        age = now - changed
        if path.name.startswith(_NEW):
            if age > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
            continue
        total += _size(path)
        if total > LIMIT and age > _IN_USE:
            _remove(path, wait=False)


def _by_change(folder: Path) -> Iterator[tuple[float, Path]]:
    """Yield entries with their times of last use, without those that other processes remove meanwhile."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path.stat().st_mtime, path


def _remove(path: Path, *, wait: bool) -> None:
    """Remove an entry, which no process finds from now on. While others read it, wait or leave it."""
    descriptor = _opened(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    if descriptor is not None:
        old = Path(tempfile.mkdtemp(prefix=_NEW, dir=path.parent))
        path.rename(old)
        shutil.rmtree(old, ignore_errors=True)
        os.close(descriptor)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process removes the entry
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
