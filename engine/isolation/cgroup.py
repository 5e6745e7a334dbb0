"""Limits by cgroup: one group for the engine, below it one for each instance, of version 1 or 2.

The group holds whatever an instance starts, so that limits count for all of it together, and so does a kill.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from engine.isolation.limits import Enclosure, Limits, bound_descriptors
from engine.isolation.processes import MAX_WAIT, kill_and_wait


class Setting(Struct, frozen=True, kw_only=True):
    """A value written into each instance's group; ``{memory}`` and ``{processes}`` stand for its limits."""

    controller: str
    file: str
    value: str
    optional: bool = False  #: not every kernel has it


class Layout(Struct, frozen=True, kw_only=True):
    """What differs between the versions."""

    name: str
    settings: tuple[Setting, ...]
    oom_file: str  #: counts kills in a line ``oom_kill N``
    door: str  #: takes the number of a process that moves itself
    anonymous: str  #: begins the line of ``memory.stat`` with what is not of files
    alarm: str = ""  #: the file whose value can be watched by ``cgroup.event_control``


V1 = Layout(
    name="cgroup v1",
    settings=(
        Setting(controller="memory", file="memory.limit_in_bytes", value="{memory}"),
        Setting(controller="memory", file="memory.memsw.limit_in_bytes", value="{memory}", optional=True),
        Setting(controller="pids", file="pids.max", value="{processes}"),
    ),
    oom_file="memory.oom_control",
    door="tasks",
    anonymous="total_rss ",
    alarm="memory.usage_in_bytes",
)
V2 = Layout(
    name="cgroup v2",
    settings=(
        Setting(controller="memory", file="memory.max", value="{memory}"),
        Setting(controller="memory", file="memory.swap.max", value="0", optional=True),
        Setting(controller="memory", file="memory.oom.group", value="1", optional=True),
        Setting(controller="pids", file="pids.max", value="{processes}"),
    ),
    oom_file="memory.events",
    door="cgroup.procs",
    anonymous="anon ",
)


class CgroupIsolation:
    """``folders`` gives the engine's own group for each controller (the same one in version 2).

    They are its own while it has these ``locks``, which it closes.
    """

    def __init__(self, layout: Layout, folders: dict[str, Path], locks: list[int]) -> None:
        self._layout, self._folders, self._claims = layout, folders, locks

    @property
    def name(self) -> str:
        return self._layout.name

    def enclose(self, instance_id: str, limits: Limits) -> CgroupEnclosure:
        folders = {name: path / instance_id for name, path in self._folders.items()}
        group = CgroupEnclosure(self._layout, folders, limits)
        try:
            group.create()
        except BaseException:
            group.remove()
            raise
        return group

    def measure(self, enclosures: Sequence[Enclosure | None]) -> Sequence[int]:
        return [one.anonymous() if isinstance(one, CgroupEnclosure) else 0 for one in enclosures]

    def close(self) -> None:
        for folder in set(self._folders.values()):
            remove_group(folder)
        while self._claims:
            os.close(self._claims.pop())


class CgroupEnclosure:
    """The group of one instance."""

    def __init__(self, layout: Layout, folders: dict[str, Path], limits: Limits) -> None:
        self._layout, self._folders, self._limits = layout, folders, limits

    @property
    def shared(self) -> bool:
        return self._limits.tmp > 0

    def create(self) -> None:
        for folder in self._groups():
            folder.mkdir()
        self.write_limits()

    def write_limits(self) -> None:
        memory, processes = (self._limits.memory + self._limits.tmp) << 20, self._limits.processes
        for setting in self._layout.settings:
            file = self._folders[setting.controller] / setting.file
            if not setting.optional or file.exists():
                write(file, setting.value.format(memory=memory, processes=processes))

    def admit(self, pid: int) -> None:
        bound_descriptors(pid)
        for folder in () if self._limits.enters else self._groups():
            write(folder / "cgroup.procs", str(pid))

    def cgroup_fds(self) -> list[int]:
        opened: list[int] = []
        try:
            for folder in self._groups():
                opened.append(os.open(folder / self._layout.door, os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for door in opened:
                os.close(door)
            raise
        return opened

    def alarm(self) -> int | None:
        if not self._layout.alarm:
            return None
        folder = self._folders["memory"]
        try:
            alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:  # there is no descriptor for it
            return None
        try:
            with open(folder / self._layout.alarm) as watched:
                write(folder / "cgroup.event_control", f"{alarm} {watched.fileno()} {self._limits.memory << 20}")
        except OSError:
            os.close(alarm)
            return None
        return alarm

    def anonymous(self) -> int:
        """Bytes that are not of files; 0 when the group is gone."""
        try:
            text = (self._folders["memory"] / "memory.stat").read_text()
        except OSError:
            return 0
        lines = (line for line in text.splitlines() if line.startswith(self._layout.anonymous))
        return int(next(lines, "none 0").split()[1])

    def kill(self) -> None:
        for folder in self._groups():
            kill_group(folder)

    def out_of_memory(self) -> bool:
        try:
            text = (self._folders["memory"] / self._layout.oom_file).read_text()
        except (OSError, KeyError):
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())

    def remove(self) -> None:
        for folder in self._groups():
            remove_group(folder)

    def _groups(self) -> set[Path]:
        return set(self._folders.values())


def write(file: Path, text: str) -> None:
    # Not write_text: that would create the file if the group has vanished and the path is no cgroup any more.
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def members(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill_group(folder: Path) -> None:
    """Kill every process of the group itself, having refused it new ones where that is possible."""
    try:
        write(folder / "cgroup.kill", "1")
        return
    except OSError:
        pass  # version 1, or a kernel before 5.14
    with suppress(OSError):  # no such controller here: then remove_group kills until nothing is left
        write(folder / "pids.max", "0")
    for pid in members(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove_group(folder: Path) -> bool:
    """End all that lives in the group and below it, then remove it. Blocks. False if something would not go."""
    for child in children(folder):
        remove_group(child)
    give_up = time.monotonic() + MAX_WAIT
    while True:
        kill_group(folder)
        try:
            folder.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > give_up:
                return False
        if not (left := members(folder)):
            time.sleep(0.001)  # the last one is on its way out of the kernel, which tells nobody when it has left
        elif kill_and_wait(left, lambda pid: pid in members(folder)):
            return False


def children(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
