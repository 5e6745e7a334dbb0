"""Detection of the kernel's mechanisms that instances use on this host: limits, of which the strongest is tried first,
and the mapping of ports.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from engine.isolation import cgroup
from engine.isolation.limits import Isolation, Limits
from engine.isolation.rlimits import RlimitIsolation

CONTROLLERS = ("memory", "pids")  #: required; the controller cpu is used, too, where it works
_MARKER = re.compile(r"[\w.-]{1,100}", re.ASCII)
_LEAF = ".engine"  #: suffix of the group into which the engine moves itself (version 2)
_OLDEST = (5, 5)  #: first kernel that can continue a system call after a user notification
_SECCOMP = {"x86_64": 317, "aarch64": 277}  #: number of the system call, by machine
_SET_FILTER, _NEW_LISTENER = 1, 8


def detect_isolation(marker: str) -> Isolation:
    """Return the strongest mechanism that works here.

    ``marker`` identifies the engine's data directory on this host.
    """
    check_marker(marker)
    return _version_1(marker) or _version_2(marker) or RlimitIsolation()


def check_marker(marker: str) -> None:
    if not _MARKER.fullmatch(marker):
        raise ValueError(f"the marker {marker!r} names cgroups: it must be 1 to 100 letters, digits, '_', '.' or '-'")


def cgroup_mounts() -> set[Path]:
    """Return the mount points of all cgroup file systems, of both versions."""
    return {mount for mount, _, kind, _ in _mounts() if kind in ("cgroup", "cgroup2")}


def _version_1(marker: str) -> Isolation | None:
    own = _own_groups()
    folders: dict[str, Path] = {}
    for mount, root, kind, options in _mounts():
        for controller in (*CONTROLLERS, "cpu"):
            if kind == "cgroup" and controller in options.split(",") and controller in own:
                folders[controller] = _visible_path(mount, root, own[controller]) / (cgroup.PREFIX + marker)
    return _try_layout(cgroup.V1, folders) if folders.keys() >= set(CONTROLLERS) else None


def _version_2(marker: str) -> Isolation | None:
    own = _own_groups().get("")
    paths = [_visible_path(mount, root, own) for mount, root, kind, _ in _mounts() if kind == "cgroup2" and own]
    if not paths:
        return None
    base = paths[0].parent if paths[0].name.endswith(_LEAF) else paths[0]
    folder = base / (cgroup.PREFIX + marker)
    try:
        _delegate(base, marker)
    except OSError:
        return None
    return _try_layout(cgroup.V2, dict.fromkeys((*CONTROLLERS, "cpu"), folder))


def _delegate(base: Path, marker: str) -> None:
    """Enable the controllers for the child cgroups of ``base``.

    The kernel allows this only if ``base`` itself contains no processes, so the engine moves itself into a cgroup below
    it.
    """
    if not set(CONTROLLERS) <= set((base / "cgroup.controllers").read_text().split()):
        raise OSError("the controllers are not available")
    try:
        _enable_controllers(base)
    except OSError:
        leaf = base / (cgroup.PREFIX + marker + _LEAF)
        with cgroup.group_locked(leaf):
            cgroup.write(leaf / "cgroup.procs", "0")
        _enable_controllers(base)


def _enable_controllers(folder: Path) -> None:
    """Enable the controllers for the child cgroups of this cgroup (version 2)."""
    cgroup.write(folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in CONTROLLERS))
    with suppress(OSError):  # absent, or refused because of real-time processes
        cgroup.write(folder / "cgroup.subtree_control", "+cpu")


def _try_layout(layout: cgroup.Layout, folders: dict[str, Path]) -> Isolation | None:
    """Create the engine's cgroup and, as a trial, a cgroup like those of instances. Return None if either fails.

    If it fails with the controller cpu, try without. Also remove stale cgroups of other engines.
    """
    locks: list[int] = []
    isolation = cgroup.CgroupIsolation(layout, folders, locks)
    try:
        for folder in set(folders.values()):
            locks.append(cgroup.lock_group(folder))
            if layout is cgroup.V2:
                _enable_controllers(folder)
            probe = folder / "probe"
            probe.mkdir()
            needed = [s.file for s in layout.settings if folders.get(s.controller) == folder and not s.optional]
            usable = all((probe / file).exists() for file in needed)
            probe.rmdir()
            if not usable:
                raise OSError("the group lacks its files")
            cgroup.remove_stale_groups(folder)
        _weigh_engine(layout, folders)
    except OSError:
        isolation.close()
        return _try_layout(layout, {name: folders[name] for name in CONTROLLERS}) if "cpu" in folders else None
    return isolation


def _weigh_engine(layout: cgroup.Layout, folders: dict[str, Path]) -> None:
    """Give all instances together the weight of one busy process on each processor.

    The default is the weight of one process, so that any other of the machine would get as much as all instances.
    """
    layout = replace(layout, settings=tuple(setting for setting in layout.settings if setting.controller == "cpu"))
    cpu = 1000 * min(os.cpu_count() or 1, 100)  # weights have a maximum
    cgroup.CgroupEnclosure(layout, folders, Limits(memory=0, processes=0, cpu=cpu)).write_limits()


def _mounts() -> Iterator[tuple[Path, str, str, str]]:
    """Yield the mount point, root inside the file system, type and options of each mounted file system."""
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        yield Path(fields[4].replace("\\040", " ")), fields[3], kind, options.strip()


def _own_groups() -> dict[str, str]:
    """Return the cgroup of this process for each controller; in version 2 the controller's name is empty."""
    groups = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _visible_path(mount: Path, root: str, group: str) -> Path:
    """Return the path of a cgroup below its mount point. A container may see only the cgroups below ``root``."""
    inside = group.removeprefix(root) if root != "/" else group
    folder = mount / inside.lstrip("/")
    return folder if folder.is_dir() else mount


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def can_map_ports() -> bool:
    """Return whether ``engine/workers/bridge_ports.py`` can map ports of HTTP functions here. Changes nothing."""
    number = _SECCOMP.get(platform.machine())
    version = tuple(int(part) for part in os.uname().release.split(".", 2)[:2] if part.isdecimal())
    if number is None or version < _OLDEST:
        return False
    # The kernel checks the requested operation before the filter. The filter is missing here: EFAULT means supported.
    result = ctypes.CDLL(None, use_errno=True).syscall(number, _SET_FILTER, _NEW_LISTENER, None)
    return result == -1 and ctypes.get_errno() == errno.EFAULT
