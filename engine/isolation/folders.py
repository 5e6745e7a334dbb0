"""Folders of the host that functions may see, by the names that the setting ``executor.folders`` gives them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import asdict

from engine.errors import InvalidField, SettingsError
from engine.model import Function
from engine.runtimes.interpreters import WORKERS

FolderName = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$", description="needs 1 to 64 of a-z, 0-9, `._-`")]
FolderPath = Annotated[str, Meta(pattern=r"^(/(?!\.\.?(/|$))[^/\0]+)+$", description="must be like /srv/images")]
#: Paths that no folder may contain or be in. The last four are places of files that a sandbox has of its own.
_NEVER = ("/proc", "/sys", "/dev", "/etc", "/tmp", "/var/tmp", "/opt/function", "/home/snuser")


class Folder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Folder of the host, as the settings describe it."""

    path: FolderPath  #: absolute, also that in functions that ask for the folder, see [files](files.md)
    mode: Literal["ro", "rw"] = "ro"  #: ro: functions read; rw: they read and write
    projects: tuple[str, ...] = ("*",)  #: whose functions may ask for it; ``*``: those of all


class HostFolder(Folder, frozen=True, kw_only=True):
    source: str = ""  #: path on this machine, without symbolic links; empty: this machine does not have the folder


AnyFolder = TypeVar("AnyFolder", bound=Folder)


def offered_to(project: str, folders: Mapping[str, AnyFolder]) -> dict[str, AnyFolder]:
    return {name: folder for name, folder in folders.items() if {"*", project} & {*folder.projects}}


def folders_of(function: Function, folders: Mapping[str, AnyFolder]) -> dict[str, AnyFolder]:
    """Return the folders that a function asks for: in ``functiond``, or as mounts of the platform's API.

    A mount counts if ``folders`` has its ``mount_resource``. Raises InvalidField for a folder that is not in
    ``folders`` or not for the function's project, and for a mount that should have another path in the function.
    """
    offered = offered_to(function.project, folders)
    asked: list[str] = [*function.details.get("functiond", {}).get("folders", ())]
    for mount in function.details.get("mount_config", {}).get("func_mounts", ()):
        name, path = (str(mount.get(key) or "") for key in ("mount_resource", "local_mount_path"))
        if name in folders:
            asked.append(name)
            if name in offered and path not in ("", folders[name].path):
                allowed = f"must be {folders[name].path}, the path of the folder {name} on the host"
                raise InvalidField("func_mounts.local_mount_path", path, allowed)
    if wrong := [name for name in asked if name not in offered]:
        allowed = f"must be among the folders of executor.folders for this project: {', '.join(offered) or 'none'}"
        raise InvalidField("functiond.folders", wrong[0], allowed)
    return {name: offered[name] for name in asked}


def labels_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of nodes that have these folders."""
    return tuple(f"folder.{name}=yes" for name in names)


def find_folders(
    folders: Mapping[str, Folder], kept: Iterable[str | Path], *, elsewhere: bool = False
) -> dict[str, HostFolder]:
    """Return the folders with their paths on this machine. ``kept`` are paths of files that no function may see.

    Raises SettingsError for a folder that contains one of them, or code of the engine, or is in it; for one inside
    another, in which functions could replace it by a link; and for one that does not exist, unless it may be
    ``elsewhere``.
    """
    environment = [sys.prefix] if sys.prefix != sys.base_prefix else []
    code = [WORKERS.parent, WORKERS.parents[1] / "plugins", *environment]
    found, never = dict[str, HostFolder](), [*_NEVER, *map(str, code), *map(str, filter(None, kept))]
    for name, folder in folders.items():
        path, source = folder.path, os.path.realpath(folder.path)
        others = [*never, *(known.path for known in found.values() if known.path != path)]
        forms = [form(other) for other in others for form in (os.path.abspath, os.path.realpath)]
        met = [one for one in forms for own in (path, source) if os.path.commonpath((own, one)) in (own, one)]
        here = os.path.isdir(source)
        if met or not (here or elsewhere):
            contains = f"contains {met[0]} or is in it, which functions must not see or replace" if met else ""
            raise SettingsError(f"the folder {name} of the host, {path}, {contains or 'must exist before the start'}")
        found[name] = HostFolder(**asdict(folder), source=source if here else "")
    return found
