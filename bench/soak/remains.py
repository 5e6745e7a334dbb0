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
    pids: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += [int(child), *children(int(child))]
    return pids


def kill_one(pid: int, random: Random) -> bool:
    """Kill a descendant of the engine, chosen at random. Return False if there is none."""
    pids = children(pid)
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(random.choice(pids), signal.SIGKILL)
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
    """Return the targets of all descriptors of a process, without the numbers of pipes and sockets.

    Those of the database are left out: SQLite keeps them for connections to come, as many as were ever open together.
    A connection that stays open is seen by its descriptor of the write-ahead log.
    """
    names: list[str] = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            names.append(os.readlink(f"/proc/{pid}/fd/{entry}").partition(":[")[0])
    return sorted(name for name in names if not name.endswith("/journal.db"))


def processes_left(marker: str) -> int:
    return len(list(marked(ENGINE_VARIABLE, marker)))


def groups_left(marker: str) -> int:
    return sum(PREFIX + marker in folders for mount in cgroup_mounts() for _, folders, _ in os.walk(mount))


def files_left(directory: Path) -> list[str]:
    """Return the entries in the folder for temporary files of a data directory, without those of every sandbox."""
    folder = directory / "tmp"
    entries = [path for path in folder.iterdir() if path.name != SANDBOX] if folder.exists() else []
    return sorted(entry.name for entry in entries)
