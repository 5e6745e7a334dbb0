"""Limits by cgroups, version 1 or 2. The engine has a cgroup, which contains one cgroup per instance.

The cgroup of an instance contains every process that the instance starts. Limits and kills apply to all these processes
together.

An engine holds the lock of its cgroup while it runs; an unlocked cgroup is stale. An engine that is killed cannot
remove its cgroups. If it is never started again, only another engine can remove them. Otherwise stale cgroups would
accumulate on the host, and each start, which searches all cgroups, would take longer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from engine.isolation.limits import Enclosure, Isolation, Limits, bound_descriptors
from engine.isolation.processes import MAX_WAIT, kill_and_wait

PREFIX = "functiond-"  #: prefix of the name of every engine's group


class Setting(Struct, frozen=True, kw_only=True):
    """File and value that are written for each instance's cgroup.

    ``{memory}`` (bytes), ``{processes}``, and ``{shares}`` or ``{weight}`` of its CPU are replaced by its limits. One
    processor has 1024 shares or the weight 100, which are the kernel's defaults.
    """

    controller: str
    file: str
    value: str
    optional: bool = False  #: missing in some kernels


class Layout(Struct, frozen=True, kw_only=True):
    """File names and values that differ between the cgroup versions."""

    name: str
    settings: tuple[Setting, ...]
    oom_file: str  #: file with the number of kills in a line ``oom_kill N``
    procs_file: str  #: file to which a process writes to move itself
    anonymous: str  #: prefix of the line in ``memory.stat`` that counts memory not backed by files
    alarm: str = ""  #: file watched through ``cgroup.event_control``; empty: not supported


V1 = Layout(
    name="cgroup v1",
    settings=(
        Setting(controller="memory", file="memory.limit_in_bytes", value="{memory}"),
        Setting(controller="memory", file="memory.memsw.limit_in_bytes", value="{memory}", optional=True),
        Setting(controller="pids", file="pids.max", value="{processes}"),
        Setting(controller="cpu", file="cpu.shares", value="{shares}"),
    ),
    oom_file="memory.oom_control",
    procs_file="tasks",
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
        Setting(controller="cpu", file="cpu.weight", value="{weight}"),
    ),
    oom_file="memory.events",
    procs_file="cgroup.procs",
    anonymous="anon ",
)


class CgroupIsolation(Isolation):
    """Isolation by cgroups.

    ``folders`` maps each controller to the engine's cgroup, which is the same for all in version 2; ``cpu`` may be
    missing. ``locks`` are descriptors that lock the engine's cgroups against removal by other engines; ``close`` closes
    them.
    """

    def __init__(self, layout: Layout, folders: dict[str, Path], locks: list[int]) -> None:
        self._layout, self._folders, self._locks = layout, folders, locks
        self.name = layout.name if "cpu" in folders else f"{layout.name} without CPU weights"

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
        return [group.anonymous() if isinstance(group, CgroupEnclosure) else 0 for group in enclosures]

    def close(self) -> None:
        for folder in set(self._folders.values()):
            remove_group(folder)
        while self._locks:
            os.close(self._locks.pop())


class CgroupEnclosure(Enclosure):
    """Cgroup of one instance."""

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
        limits = self._limits
        values = {
            "memory": (limits.memory + limits.tmp) << 20,
            "processes": limits.processes,
            "shares": limits.cpu * 1024 // 1000,
            "weight": limits.cpu // 10,
        }
        for setting in self._layout.settings:
            if (folder := self._folders.get(setting.controller)) is not None:
                file = folder / setting.file
                if not setting.optional or file.exists():
                    write(file, setting.value.format_map(values))

    def admit(self, pid: int) -> None:
        bound_descriptors(pid)
        for folder in () if self._limits.enters else self._groups():
            write(folder / "cgroup.procs", str(pid))

    def cgroup_fds(self) -> list[int]:
        opened: list[int] = []
        try:
            for folder in self._groups():
                opened.append(os.open(folder / self._layout.procs_file, os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def alarm(self) -> int | None:
        if not self._layout.alarm:
            return None
        folder = self._folders["memory"]
        try:
            alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:  # no free descriptor
            return None
        try:
            with open(folder / self._layout.alarm) as watched:
                write(folder / "cgroup.event_control", f"{alarm} {watched.fileno()} {self._limits.memory << 20}")
        except OSError:
            os.close(alarm)
            return None
        return alarm

    def anonymous(self) -> int:
        """Return the bytes of memory in use that are not backed by files, or 0 if the cgroup no longer exists."""
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
    # Not write_text: if the group was removed and the path is outside cgroupfs, write_text would create a file.
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
    """Kill every process of this cgroup; with ``cgroup.kill``, also those of cgroups below it.

    If the kernel has no ``cgroup.kill``, first forbid the cgroup new processes, as far as possible.
    """
    try:
        write(folder / "cgroup.kill", "1")
        return
    except OSError:
        pass  # version 1, or a kernel before 5.14
    with suppress(OSError):  # no pids controller: remove_group repeats the kill until the group is empty
        write(folder / "pids.max", "0")
    for pid in members(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove_group(folder: Path) -> bool:
    """Kill all processes in the cgroup and in cgroups below it, then remove these cgroups. Blocks.

    Return False if the cgroup could not be removed, for example because a process did not exit.
    """
    for child in children(folder):
        remove_group(child)
    deadline = time.monotonic() + MAX_WAIT
    while True:
        kill_group(folder)
        try:
            folder.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return False
        if not (left := members(folder)):
            time.sleep(0.001)  # the last process is still exiting; the kernel sends no event for that
        elif kill_and_wait(left, lambda pid: pid in members(folder)):
            return False


def children(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def lock_group(folder: Path) -> int:
    """Create this cgroup unless it exists, and lock it. Raises OSError if the cgroup cannot be created or locked.

    The lock is held until the returned descriptor is closed or this process exits. A process must hold the lock of a
    cgroup in order to remove the cgroup.
    """
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
        with suppress(FileNotFoundError):  # another engine has just removed it
            return _locked(folder, fcntl.LOCK_SH)  # a process that removes it holds the lock only briefly


@contextmanager
def group_locked(folder: Path) -> Iterator[None]:
    """Create this cgroup unless it exists, and hold its lock until the block ends.

    Raises OSError if the cgroup cannot be created or locked.
    """
    fd = lock_group(folder)
    try:
        yield
    finally:
        os.close(fd)


def remove_stale_groups(beside: Path) -> None:
    """Remove the siblings of a cgroup whose engines have exited, except siblings that still contain processes.

    Cgroups elsewhere are not removed, because locks are visible only to processes with the same view of the cgroup file
    system. They may belong to another container.
    """
    for folder in beside.parent.glob(PREFIX + "*"):
        with suppress(OSError):
            _remove_stale(folder)


def _remove_stale(folder: Path) -> None:
    fd = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        for child in children(folder):
            child.rmdir()
        folder.rmdir()
    finally:
        os.close(fd)


def _locked(folder: Path, operation: int) -> int:
    """Lock the cgroup and return the descriptor that holds the lock.

    Raises FileNotFoundError if the cgroup was removed or replaced before it was locked.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
        if not os.path.samestat(os.fstat(fd), os.stat(folder)):
            raise FileNotFoundError(errno.ENOENT, "the group was removed and created again", str(folder))
    except BaseException:
        os.close(fd)
        raise
    return fd
