"""What a dead engine left behind: its processes, groups and temporary folders."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from engine.isolation.cgroup import remove_group
from engine.isolation.cgroup_lock import PREFIX, claimed
from engine.isolation.detect import cgroup_mounts, check_marker
from engine.isolation.limits import ENGINE_VARIABLE
from engine.isolation.processes import kill_marked


def kill_orphans(marker: str, tmp: Path | None = None) -> list[int]:
    """End all that an engine with this marker started, and wait until it is gone. Blocks: for a thread.

    To be done before its work is queued again, and only by who holds the lock of the data directory: a living
    engine would lose its instances. Gives the processes that hang in the kernel and would not go.
    """
    check_marker(marker)
    for folder in _groups(PREFIX + marker):
        with claimed(folder):
            remove_group(folder)
    stuck = kill_marked(ENGINE_VARIABLE, marker)
    if tmp is not None and tmp.is_dir():
        for entry in os.scandir(tmp):
            remove_tree(Path(entry.path))
    return stuck


def remove_tree(folder: Path) -> None:
    """Remove a folder in which user code worked; what cannot be removed stays.

    It may hold folders that not even their owner may change, and folders in folders so deep that no path leads to the
    last and no recursion comes back from it: each is moved up to the top before it is emptied.
    """
    if not folder.is_symlink():
        below = _emptied(folder, folder)
        while below:
            inner = below.pop()
            below += _emptied(inner, folder)
            with suppress(OSError):
                inner.rmdir()
        with suppress(OSError):
            folder.rmdir()


def _emptied(folder: Path, top: Path) -> list[Path]:
    """The folders that were in it, where they are now."""
    found: list[Path] = []
    with suppress(OSError):
        folder.chmod(0o700)
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif folder == top:
                    found.append(Path(entry.path))
                else:
                    os.chmod(entry.path, 0o700)  # else it cannot be moved
                    found.append(Path(entry.path).rename(top / uuid.uuid4().hex))
    return found


def _groups(name: str) -> list[Path]:
    """The groups of that name anywhere: the engine may have run in another group than this process does."""
    found: list[Path] = []
    for mount in cgroup_mounts():
        for path, folders, _ in os.walk(mount):
            if name in folders:
                found.append(Path(path) / name)
                folders.remove(name)
    return found
