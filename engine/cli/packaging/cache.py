"""Cache of installed dependencies in the user's cache directory, bounded in size.

An entry is a folder, renamed to its key when it is complete, and renamed again before it is removed: other processes
see it whole or not at all. Entries that were not used for longest are removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.cli.client import UsageError

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
    if key and _used(folder / key):
        yield folder / key
        return
    with tempfile.TemporaryDirectory(prefix=_NEW, dir=folder, ignore_cleanup_errors=True) as new:
        fill(Path(new))
        if not key:
            yield Path(new)
            return
        _keep(Path(new), folder / key)
    _prune(folder)
    yield folder / key


def has(key: str) -> bool:
    return bool(key) and (cache_folder() / key).is_dir()


def forget(key: str) -> None:
    """Remove the entry of a key, if there is one."""
    if has(key):
        _remove(cache_folder() / key)


def _own_folder() -> Path:
    """Return the cache folder, which is made if it does not exist.

    Raises UsageError if it cannot be used, or others may write it: their packages would run as functions of the user.
    """
    folder, problem = cache_folder(), ""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if any(one.stat().st_uid != os.geteuid() or one.stat().st_mode & 0o022 for one in (folder.parent, folder)):
            problem = "it belongs to another user, or others may write it"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise UsageError(f"cannot use the cache {folder} ({problem}): set XDG_CACHE_HOME to a folder of your own")
    return folder


def _used(kept: Path) -> bool:
    """Note that an entry is used. Return whether it exists."""
    try:
        os.utime(kept)
    except FileNotFoundError:
        return False
    return True


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
    for changed, one in sorted(_by_change(folder), reverse=True):
        age = now - changed
        if one.name.startswith(_NEW):
            if age > _ABANDONED:
                shutil.rmtree(one, ignore_errors=True)
            continue
        total += _size(one)
        if total > LIMIT and age > _IN_USE:
            _remove(one)


def _by_change(folder: Path) -> Iterator[tuple[float, Path]]:
    """Yield entries with their times of last use, without those that other processes remove meanwhile."""
    for one in folder.iterdir():
        with suppress(FileNotFoundError):
            yield one.stat().st_mtime, one


def _remove(one: Path) -> None:
    """Remove an entry, which no process finds from now on."""
    old = Path(tempfile.mkdtemp(prefix=_NEW, dir=one.parent))
    with suppress(FileNotFoundError):
        one.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process removes the entry
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
