"""Removal of the processes, cgroups and temporary files of an engine that was killed."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from engine.isolation.cgroup import PREFIX, group_locked, remove_group
from engine.isolation.detect import cgroup_mounts, check_marker
from engine.isolation.limits import ENGINE_VARIABLE
from engine.isolation.processes import kill_marked


def kill_orphans(marker: str, tmp: Path | None = None) -> list[int]:
    """Kill all processes that an engine with this marker started, and wait for their exit.

    Also remove the engine's cgroups and all files in ``tmp``. Return the processes that did not exit because they hang
    in the kernel. Call before the invocations of the killed engine are queued again. Call only while holding the lock
    of the data directory, because otherwise the instances of a running engine would be killed. Blocks: call in a
    thread.
    """
    check_marker(marker)
    for folder in _groups(PREFIX + marker):
        with group_locked(folder):
            remove_group(folder)
    stuck = kill_marked(ENGINE_VARIABLE, marker)
    if tmp is not None and tmp.is_dir():
        for entry in os.scandir(tmp):
            remove_tree(Path(entry.path))
    return stuck


def remove_tree(folder: Path) -> None:
    """Remove a folder in which user code worked, apart from files that cannot be removed.

    The folder may contain folders that their owner may not write to. Folders may be nested so deep that paths become
    too long and recursion fails. Therefore each nested folder is moved to the top before it is emptied.
    """
    if not folder.is_symlink():
        below = _empty(folder, folder)
        while below:
            inner = below.pop()
            below += _empty(inner, folder)
            with suppress(OSError):
                inner.rmdir()
        with suppress(OSError):
            folder.rmdir()


def _empty(folder: Path, top: Path) -> list[Path]:
    """Delete the files of a folder, and move the folders in it to the top. Return the new paths of these folders."""
    folders: list[Path] = []
    with suppress(OSError):
        folder.chmod(0o700)
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif folder == top:
                    folders.append(Path(entry.path))
                else:
                    os.chmod(entry.path, 0o700)  # otherwise it cannot be moved
                    folders.append(Path(entry.path).rename(top / uuid.uuid4().hex))
    return folders


def _groups(name: str) -> list[Path]:
    """Return the cgroups with this name in all mounted cgroup file systems.

    All cgroups are searched, because the killed engine may have run in another cgroup than this process.
    """
    groups: list[Path] = []
    for mount in cgroup_mounts():
        for path, folders, _ in os.walk(mount):
            if name in folders:
                groups.append(Path(path) / name)
                folders.remove(name)
    return groups
