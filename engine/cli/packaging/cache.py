"""Cache of installed dependencies in the user's cache directory, bounded in size.

An entry is a folder, renamed to its key when it is complete. Entries that were not used for longest are removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot use the cache {folder} ({error.strerror})"
        raise UsageError(f"{problem}: set XDG_CACHE_HOME to a folder that you may write") from None
    if key and (found := folder / key).is_dir():
        os.utime(found)
        yield found
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
        shutil.rmtree(cache_folder() / key, ignore_errors=True)


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
    entries = sorted(folder.iterdir(), key=lambda one: -one.stat().st_mtime)
    for one in entries:
        age = now - one.stat().st_mtime
        if one.name.startswith(_NEW):
            if age > _ABANDONED:
                shutil.rmtree(one, ignore_errors=True)
            continue
        total += _size(one)
        if total > LIMIT and age > _IN_USE:
            shutil.rmtree(one, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names)
