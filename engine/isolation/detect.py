"""Which mechanism of isolation this host offers: asked once, by trying it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from engine.isolation.cgroup import V1, V2, CgroupIsolation, Layout, write
from engine.isolation.cgroup_lock import PREFIX, claim, claimed, sweep
from engine.isolation.limits import Isolation
from engine.isolation.rlimits import RlimitIsolation

CONTROLLERS = ("memory", "pids")
_MARKER = re.compile(r"[\w.-]{1,100}", re.ASCII)
_LEAF = ".engine"  #: ends the name of the group into which the engine moves itself (version 2)


def detect_isolation(marker: str) -> Isolation:
    """The strongest one that works here. ``marker`` names the engine's data directory on this host."""
    check_marker(marker)
    return _version_1(marker) or _version_2(marker) or RlimitIsolation()


def check_marker(marker: str) -> None:
    if not _MARKER.fullmatch(marker):
        raise ValueError(f"the marker {marker!r} must be 1 to 100 letters, digits, '_', '.' or '-': it names cgroups")


def cgroup_mounts() -> set[Path]:
    """Where hierarchies are mounted, of both versions."""
    return {mount for mount, _, kind, _ in _mounts() if kind in ("cgroup", "cgroup2")}


def _version_1(marker: str) -> Isolation | None:
    own = _own_groups()
    folders: dict[str, Path] = {}
    for mount, root, kind, options in _mounts():
        for controller in CONTROLLERS:
            if kind == "cgroup" and controller in options.split(",") and controller in own:
                folders[controller] = _visible(mount, root, own[controller]) / (PREFIX + marker)
    if len(folders) < len(CONTROLLERS):
        return None
    return _tried(V1, folders)


def _version_2(marker: str) -> Isolation | None:
    own = _own_groups().get("")
    found = [_visible(mount, root, own) for mount, root, kind, _ in _mounts() if kind == "cgroup2" and own]
    if not found:
        return None
    base = found[0].parent if found[0].name.endswith(_LEAF) else found[0]
    folder = base / (PREFIX + marker)
    try:
        _delegate(base, marker)
    except OSError:
        return None
    return _tried(V2, dict.fromkeys(CONTROLLERS, folder))


def _delegate(base: Path, marker: str) -> None:
    """Let the children of ``base`` have the controllers. Only a group without processes may: so the engine moves."""
    if set(CONTROLLERS) <= set((base / "cgroup.subtree_control").read_text().split()):
        return
    if not set(CONTROLLERS) <= set((base / "cgroup.controllers").read_text().split()):
        raise OSError("the controllers are not here")
    try:
        _pass_on(base)
    except OSError:
        leaf = base / (PREFIX + marker + _LEAF)
        with claimed(leaf):
            write(leaf / "cgroup.procs", "0")
        _pass_on(base)


def _pass_on(folder: Path) -> None:
    """Let its children have the controllers (version 2)."""
    write(folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in CONTROLLERS))


def _tried(layout: Layout, folders: dict[str, Path]) -> Isolation | None:
    """Make the engine's group, and in it one group as instances will have; those of dead engines make room."""
    locks: list[int] = []
    isolation = CgroupIsolation(layout, folders, locks)
    try:
        for folder in set(folders.values()):
            locks.append(claim(folder))
            if layout is V2:
                _pass_on(folder)
            probe = folder / "probe"
            probe.mkdir()
            needed = [s.file for s in layout.settings if folders[s.controller] == folder and not s.optional]
            usable = all((probe / file).exists() for file in needed)
            probe.rmdir()
            if not usable:
                raise OSError("the group lacks its files")
            sweep(folder)
    except OSError:
        isolation.close()
        return None
    return isolation


def _mounts() -> Iterator[tuple[Path, str, str, str]]:
    """Mount point, root inside the file system, type and options of each mount."""
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        yield Path(fields[4].replace("\\040", " ")), fields[3], kind, options.strip()


def _own_groups() -> dict[str, str]:
    """Controller to the group of this process; version 2 goes by the empty name."""
    groups = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _visible(mount: Path, root: str, group: str) -> Path:
    """Where a group lies under its mount; a container may see only the part below ``root``."""
    inside = group.removeprefix(root) if root != "/" else group
    folder = mount / inside.lstrip("/")
    return folder if folder.is_dir() else mount


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
