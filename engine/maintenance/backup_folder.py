"""Folder of a backup: checked destination, and the unfinished folder that takes its name when it is complete.

    DEST.partial/       until the backup is complete
    DEST/backup.json    description of the backup, see ``Manifest``
    DEST/journal.db     copy of the storage
    DEST/code/          packages that functions and dependencies refer to
    DEST/keys/          credentials and TLS key, if they were asked for

A backup has the form of a data directory. Functions of this module block the calling thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.code.unpacking import fsync_folder, write_file
from engine.errors import BackupFailed, BackupUnusable, BadDestination, DestinationExists
from engine.isolation.orphans import remove_tree
from engine.maintenance.disk_guard import free_space

MANIFEST, UNFINISHED = "backup.json", ".unfinished"
FORMAT = 1
MARGIN = 4 << 20  #: bytes for folders and for growth of the journal during the copy


class Manifest(Struct, frozen=True, kw_only=True):
    """Description of a backup."""

    format: int = FORMAT
    version: str  #: of functiond
    journal: str  #: name of the journal, which is part of all request ids
    made_at: str
    packages: tuple[str, ...]
    missing: tuple[str, ...] = ()  #: packages that the data directory lacked
    keys: tuple[str, ...] = ()  #: files in ``keys/``


class BackupFolder:
    """Destination of a backup. ``data`` is the data directory, which must not overlap it.

    Raises BadDestination or DestinationExists if the backup cannot be made there.
    """

    def __init__(self, destination: str, data: Path) -> None:
        self.path = _checked(destination, data)
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
        description = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        write_file(self.partial / MANIFEST, [description], 0o600)
        (self.partial / UNFINISHED).unlink()
        fsync_folder(self.partial)
        if self.path.exists():
            raise _exists(self.path)
        self.partial.rename(self.path)
        fsync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the unfinished folder."""
        remove_tree(self.partial)


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


def is_backup(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def _checked(destination: str, data: Path) -> Path:
    path = Path(destination)
    if not path.is_absolute() or "\0" in destination or path.name in ("", ".."):
        raise BadDestination(destination, "must be an absolute path on the machine of the engine")
    path, used = Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(data)
    if os.path.commonpath((path, used)) in (used, str(path)):
        raise BadDestination(destination, f"must be outside the data directory {used}")
    if os.path.lexists(path):
        raise _exists(path)
    if not os.path.isdir(path.parent):
        raise BadDestination(destination, f"its parent folder {path.parent} must exist, and the engine must reach it")
    return path


def _exists(path: Path) -> DestinationExists:
    return DestinationExists(str(path), "choose a destination that does not exist")
