"""The memory that this process may have: the machine's, or less where a cgroup around the engine says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Where each version's hierarchy is mounted, and the file of a group's limit.
_V1 = ((Path("memory"), "memory.limit_in_bytes"),)
_V2 = ((Path(), "memory.max"), (Path("unified"), "memory.max"))


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes. A limit counts wherever it stands, in the own group or in any above it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(cgroups, own)])


def _limits(cgroups: Path, own: Path) -> Iterator[int]:
    places: tuple[tuple[Path, str], ...]
    for line in _read(own).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            places = _V2
        elif "memory" in controllers.split(","):
            places = _V1
        else:
            continue
        for folder, file in places:
            yield from _upwards(cgroups / folder, path, file)


def _upwards(mount: Path, path: str, file: str) -> Iterator[int]:
    """A container may see its own group as the mount: then the path leads nowhere, but its beginning does."""
    group = Path(path.lstrip("/"))
    for folder in (group, *group.parents):
        text = _read(mount / folder / file).strip()
        if text.isdecimal():  # version 2 says "max" where there is no limit, version 1 a number beyond any machine
            yield int(text)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
