"""Memory and disk space that this process can use, and syncing to disk.

A cgroup around the engine may limit its memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Mount folder of each version's hierarchy, and name of the file with a group's limit.
_V1 = ((Path("memory"), "memory.limit_in_bytes"),)
_V2 = ((Path(), "memory.max"), (Path("unified"), "memory.max"))


def free_space(path: Path) -> int:
    """Return the bytes available to unprivileged processes in the file system of ``path``."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def fsync_path(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the usable memory in bytes: the lowest of the machine's memory and the limits of this process's cgroups.

    The limits of all cgroups above that of this process apply, too.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(cgroups, own)])


def _limits(cgroups: Path, own: Path) -> Iterator[int]:
    candidates: tuple[tuple[Path, str], ...]
    for line in _read(own).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            candidates = _V2
        elif "memory" in controllers.split(","):
            candidates = _V1
        else:
            continue
        for folder, file in candidates:
            yield from _limits_up_to_root(cgroups / folder, path, file)


def _limits_up_to_root(mount: Path, path: str, file: str) -> Iterator[int]:
    """Yield the memory limits of a cgroup and of all cgroups above it.

    A container may see its own cgroup at the mount point of the cgroup file system. The full path then does not exist
    there, but a shorter path does.
    """
    group = Path(path.lstrip("/"))
    for folder in (group, *group.parents):
        text = _read(mount / folder / file).strip()
        if text.isdecimal():  # without a limit, version 2 has "max" and version 1 a number larger than any machine
            yield int(text)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
