"""Children of a running engine, and what an engine leaves behind: processes, cgroups and temporary files."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random

from engine.isolation.cgroup import PREFIX
from engine.isolation.detect import cgroup_mounts
from engine.isolation.limits import ENGINE_VARIABLE
from engine.isolation.processes import marked

#: Folder with files that all sandboxes share. Each start of an engine writes it anew.
SANDBOX = "sandbox"


def children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def kill_one(pid: int, random: Random) -> bool:
    """Kill a descendant of the engine, chosen at random. Return False if there is none."""
    found = children(pid)
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(random.choice(found), signal.SIGKILL)
    return True


def marker_of(pid: int) -> str:
    """Return the marker that the children of an engine carry, or an empty text while the engine has none."""
    for child in children(pid):
        with suppress(OSError):
            for variable in Path(f"/proc/{child}/environ").read_bytes().decode(errors="replace").split("\0"):
                name, _, value = variable.partition("=")
                if name == ENGINE_VARIABLE:
                    return value
    return ""


def descriptors(pid: int) -> list[str]:
    """Return the targets of all descriptors of a process, without the numbers of pipes and sockets."""
    found: list[str] = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}").partition(":[")[0])
    return sorted(found)


def processes_left(marker: str) -> int:
    return len(list(marked(ENGINE_VARIABLE, marker)))


def groups_left(marker: str) -> int:
    return sum(PREFIX + marker in folders for mount in cgroup_mounts() for _, folders, _ in os.walk(mount))


def files_left(directory: Path) -> list[str]:
    """Return the entries in the folder for temporary files of a data directory, without those of every sandbox."""
    folder = directory / "tmp"
    entries = [one for one in folder.iterdir() if one.name != SANDBOX] if folder.exists() else []
    return sorted(one.name for one in entries)
