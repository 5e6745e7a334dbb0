"""Folder of a backup: checked destination, and the unfinished folder that takes its name when it is complete.

    DEST.partial/       until the backup is complete
    DEST/backup.json    description of the backup, see ``Manifest``
    DEST/journal.db     copy of the storage
    DEST/code/          packages that functions and dependencies refer to, packed; see ``packed_files``
    DEST/keys/          credentials and TLS key, if ``add_keys`` was called

A backup has the form of a data directory. Functions of this module block the calling thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.code.package_files import copy_file, digest_of
from engine.code.unpacking import replace_file, write_file
from engine.errors import BackupFailed, BackupUnusable, BadDestination, DestinationExists
from engine.isolation.machine import free_space, fsync_path
from engine.isolation.orphans import remove_tree
from engine.storage import Problem
from engine.storage.data_directory import BACKUPS

MANIFEST, UNFINISHED = "backup.json", ".unfinished"
OTHER = "use another backup"  #: advice for one that is damaged
_HERE = "run the command on the engine's machine, as the engine's user"
FORMAT = 2  #: 1 has unpacked code, too, and no checksums
MARGIN = 4 << 20  #: bytes for folders and for growth of the journal during the copy


class Manifest(Struct, frozen=True, kw_only=True):
    """Description of a backup."""

    format: int = FORMAT
    version: str  #: of functiond
    journal: str  #: name of the journal, which is part of all request ids
    made_at: str
    packages: tuple[str, ...]
    missing: tuple[str, ...] = ()  #: packages that the data directory lacked
    files: dict[str, str] = {}  #: SHA-256 of each other file by its path
    problems: tuple[Problem, ...] = ()  #: found when the backup was made

    @property
    def whole(self) -> bool:
        return not self.problems and not self.missing


class BackupFolder:
    """Destination of a backup. ``data`` is the data directory, of which only the folder of backups may contain it.

    ``below`` is the folder in which it must be, also by its links, and which is created if it is missing; None: any.
    Raises BadDestination or DestinationExists if the backup cannot be made there.
    """

    def __init__(self, destination: str, data: Path, below: Path | None) -> None:
        self.path = _checked(destination, data, below)
        self.partial = self.path.with_name(f"{self.path.name}.partial")

    def check_room(self, needed: int, keep_free: int) -> None:
        """Raise BackupFailed unless the disk has room for ``needed`` bytes.

        ``keep_free`` more bytes must stay free on the disk of the data directory, where the engine needs them.
        """
        free = free_space(self.path.parent) - keep_free
        if free < needed + MARGIN:
            problem = f"its disk has {max(0, free) >> 20} MiB for it, {(needed + MARGIN) >> 20} MiB are needed"
            raise BackupFailed(str(self.path), problem)

    def create(self) -> None:
        """Create the unfinished folder. An unfinished folder of an earlier backup is replaced."""
        try:
            if (self.partial / UNFINISHED).is_file() or (self.partial.is_dir() and not any(self.partial.iterdir())):
                remove_tree(self.partial)
            self.partial.mkdir(mode=0o700)
            write_file(self.partial / UNFINISHED, [b""], 0o600)
        except FileExistsError:
            raise DestinationExists(str(self.partial), "remove it, or choose another destination") from None
        except OSError as error:
            raise BackupFailed(str(self.path), error) from error

    def finish(self, manifest: Manifest) -> None:
        """Give the unfinished folder its final name. On return all names in it are on disk."""
        replace_file(self.partial / MANIFEST, [_encode(manifest)], 0o600)
        (self.partial / UNFINISHED).unlink()
        fsync_path(self.partial)
        if self.path.exists():
            raise _exists(self.path)
        self.partial.rename(self.path)
        fsync_path(self.path.parent)


def read_manifest(backup: Path) -> Manifest:
    """Return the description of a backup. Raises BackupUnusable if the folder is not a complete backup."""
    if not backup.is_dir():
        raise BackupUnusable(str(backup), "is no folder: name a backup that `functiond backup` has made")
    if (backup / UNFINISHED).exists():
        raise BackupUnusable(str(backup), "was not finished: use another backup")
    try:
        table: Any = msgspec.json.decode((backup / MANIFEST).read_bytes())
        if isinstance(table, dict) and isinstance(table.get("format"), int) and table["format"] > FORMAT:
            raise BackupUnusable(str(backup), "was made by a newer functiond: use that version, or a newer one")
        return msgspec.convert(table, Manifest)
    except FileNotFoundError:
        raise BackupUnusable(
            str(backup), f"has no {MANIFEST}: name a backup that `functiond backup` has made"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupUnusable(str(backup), f"{MANIFEST} cannot be read ({error}): use another backup") from error


def add_keys(backup: Path, keys: Mapping[str, Path]) -> None:
    """Copy files with credentials and keys into a backup, by the names that they get there."""
    manifest = read_manifest(backup)
    try:
        (backup / "keys").mkdir(mode=0o700)
        for name, file in keys.items():
            for _ in copy_file(file.resolve(), backup / "keys" / name):
                pass
            manifest.files[f"keys/{name}"] = digest_of(backup / "keys" / name, "sha256")
        fsync_path(backup / "keys")
        replace_file(backup / MANIFEST, [_encode(manifest)], 0o600)
    except OSError as error:
        raise BackupUnusable(str(backup), f"its keys cannot be copied ({error}): {_HERE}") from error


def backups_in(folder: Path, journal: str) -> list[tuple[Path, Manifest]]:
    """Return the complete backups of a journal in a folder, newest first."""
    backups = list[tuple[Path, Manifest]]()
    for path in folder.iterdir():
        with suppress(BackupUnusable):
            backups.append((path, read_manifest(path)))
    backups.sort(key=lambda backup: (backup[1].made_at, backup[0]), reverse=True)
    return [backup for backup in backups if backup[1].journal == journal and not backup[0].is_symlink()]


def remove_older(backup: Path, keep: int) -> None:
    """Remove backups beside a new one, so that it and ``keep - 1`` others of its journal remain.

    If the new one is not whole, only others that are not whole are removed, and all whole ones remain.
    """
    new = read_manifest(backup)
    others = [(path, manifest) for path, manifest in backups_in(backup.parent, new.journal) if path != backup]
    for path, _ in others[keep - 1 :] if new.whole else [other for other in others if not other[1].whole]:
        remove_tree(path)
        if path.exists():
            raise BackupUnusable(str(path), f"cannot be removed: {_HERE}")


def is_backup(folder: Path) -> bool:
    return os.path.lexists(folder / MANIFEST)


def links_in(backup: Path) -> str:
    """Describe an entry of a backup that is neither file nor folder, as no backup has one; empty if there is none."""
    tops = [backup / name for name in (MANIFEST, "journal.db", "code", "keys")]
    for entry in chain(tops, *(top.rglob("*") for top in tops)):
        if os.path.lexists(entry) and (entry.is_symlink() or not (entry.is_file() or entry.is_dir())):
            return f"{entry} is neither file nor folder, such as a link, and nothing is read through it"
    return ""


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _checked(destination: str, data: Path, below: Path | None) -> Path:
    path = (below or Path("")) / destination
    if not path.is_absolute() or "\0" in destination or path.name in ("", ".."):
        raise BadDestination(destination, "must be a path on the machine of the engine")
    path, used = Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(data)
    if below is not None and Path(os.path.realpath(below)) not in path.parents:
        setting = f'to make backups there, set storage.backup_dir = "{path.parent}" and restart the engine'
        raise BadDestination(destination, f"must be below {below}, the folder of backups; {setting}")
    if os.path.commonpath((path, used)) in (used, str(path)) and Path(used, BACKUPS) not in path.parents:
        raise BadDestination(destination, f"must be outside the data directory {used}")
    if below is not None:
        with suppress(OSError):  # which the check of the parent folder tells
            below.mkdir(mode=0o700, exist_ok=True)
    if os.path.lexists(path):
        raise _exists(path)
    if not os.path.isdir(path.parent):
        raise BadDestination(destination, f"its parent folder {path.parent} must exist, and the engine must reach it")
    return path


def _exists(path: Path) -> DestinationExists:
    return DestinationExists(str(path), "choose a destination that does not exist")
