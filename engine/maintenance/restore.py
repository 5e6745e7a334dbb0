"""Restore of a backup into an empty data directory. Functions of this module block the calling thread.

The journal gets its name last, so that an engine refuses a directory whose restore was not finished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine.code.package_files import copy_file, counting, restore_package, sizes_of
from engine.code.unpacking import write_file
from engine.errors import BackupFailed, BackupUnusable, BadDestination, DestinationExists
from engine.isolation.machine import free_space, fsync_path
from engine.isolation.orphans import remove_tree
from engine.maintenance.backup_folder import MARGIN, OTHER, Manifest, links_in, read_manifest
from engine.maintenance.verification import verify
from engine.model import CodePackage
from engine.storage import is_copy, packages_in
from engine.storage.data_directory import close_to_others, locked

_EMPTY = frozenset({"lock", "lost+found"})  #: entries of an empty data directory
_JOURNAL, _UNFINISHED = "journal.db", "journal.db.restoring"


_Part = Literal["journal", "code", "keys"]


class RestoreProgress(Struct, frozen=True, kw_only=True):
    """State of a restore that runs."""

    state: _Part | Literal["check"]  #: the check of the backup, or the part that is copied
    copied: int = 0  #: bytes of all parts; during the check, those that were read
    total: int = 0  #: bytes to copy; 0 during the check
    files: int = 0  #: files that are copied completely


OnProgress = Callable[[RestoreProgress], None]


class Restored(Struct, frozen=True, kw_only=True):
    path: str
    journal: str  #: name of the journal, which is part of all request ids
    made_at: str  #: time of the backup
    bytes: int
    files: int
    packages: int
    missing: tuple[str, ...]  #: packages that the backup lacks
    keys: tuple[str, ...]  #: files in ``keys/``


def restore(
    backup: Path, data: Path, on_progress: OnProgress = lambda progress: None, *, force: bool = False
) -> Restored:
    """Restore a backup into the data directory ``data``, which must be empty or missing.

    ``on_progress`` is called during the check of the backup and after each step of the copy.

    The backup is checked first; with ``force``, a damaged one is restored as it is. Raises BackupUnusable if it is
    incomplete or damaged, DestinationExists if the data directory is not empty, BackupFailed if it cannot be written,
    and DataDirectoryLocked if an engine uses it. If the restore fails, all that was written is removed.
    """
    if problem := links_in(backup):
        raise BackupUnusable(str(backup), f"{problem}: {OTHER}")
    manifest = read_manifest(backup)
    _check_target(backup, data)
    _check(backup, manifest, on_progress, force)
    existed = data.exists()
    try:
        with locked(data):
            _check_target(backup, data)
            close_to_others(data)
            try:
                return _restore(backup, data, manifest, on_progress)
            except BaseException:
                _clear(data)
                raise
    except OSError as error:
        raise BackupFailed(str(data), error) from error
    finally:
        if not existed and data.is_dir() and not (data / _JOURNAL).exists():
            remove_tree(data)


def _check(backup: Path, manifest: Manifest, on_progress: OnProgress, force: bool) -> None:
    if not is_copy(backup):
        raise BackupUnusable(str(backup), "an engine was started on it: use another backup, or that directory itself")
    note = counting(lambda read: on_progress(RestoreProgress(state="check", copied=read)))
    for problem in verify(backup, note) if not force else ():
        if not any(name in problem.problem for name in manifest.missing):
            advice = (
                "`functiond verify` shows all problems; use another backup, or --force to restore this one as it is"
            )
            raise BackupUnusable(str(backup), f"{problem.problem}; {advice}")


def _check_target(backup: Path, data: Path) -> None:
    used, source = os.path.realpath(data), os.path.realpath(backup)
    if os.path.commonpath((used, source)) in (used, source):
        raise BadDestination(str(data), f"must be outside the backup {source}, and not around it")
    if data.is_dir() and {path.name for path in data.iterdir()} <= _EMPTY:
        return
    if os.path.lexists(data):
        raise DestinationExists(str(data), "name an empty data directory, or one that does not exist")


def _restore(backup: Path, data: Path, manifest: Manifest, on_progress: OnProgress) -> Restored:
    sizes = {package: sum(sizes_of(backup / "code", package)) for package in packages_in(backup).values()}
    packages, size = [code for code in sizes if sizes[code]], (backup / _JOURNAL).stat().st_size + sum(sizes.values())
    if free_space(data) < size + MARGIN:
        problem = f"its disk has {free_space(data) >> 20} MiB free, {(size + MARGIN) >> 20} MiB are needed"
        raise BackupFailed(str(data), problem)
    copied = files = 0
    for part, step, ended in _copies(backup, data, packages, manifest.journal):
        copied, files = copied + step, files + ended
        on_progress(RestoreProgress(state=part, copied=copied, total=max(copied, size), files=files))
    (data / _UNFINISHED).rename(data / _JOURNAL)
    fsync_path(data)
    fsync_path(data.parent)
    return Restored(
        path=str(data),
        journal=manifest.journal,
        made_at=manifest.made_at,
        bytes=copied,
        files=files,
        packages=len(packages),
        missing=tuple(code.sha256 for code in sizes if not sizes[code]),
        keys=_keys(backup),
    )


def _copies(backup: Path, data: Path, packages: list[CodePackage], journal: str) -> Iterator[tuple[_Part, int, int]]:
    """Copy all files. Yield the part, the bytes and the number of files that each step has completed."""
    yield from _steps("journal", copy_file(backup / _JOURNAL, data / _UNFINISHED))
    fsync_path(data)
    if packages:
        (data / "code").mkdir()
        write_file(data / "code" / ".journal", [journal.encode()], 0o600)
        for package in packages:
            for size, files in restore_package(backup / "code", data / "code", package):
                yield "code", size, files
        fsync_path(data / "code")
    if (backup / "keys").is_dir():
        (data / "keys").mkdir(mode=0o700)
        for name in _keys(backup):
            yield from _steps("keys", copy_file(backup / "keys" / name, data / "keys" / name))
        fsync_path(data / "keys")


def _keys(backup: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(backup / "keys"))) if (backup / "keys").is_dir() else ()


def _steps(part: _Part, steps: Iterable[int]) -> Iterator[tuple[_Part, int, int]]:
    for step in steps:
        yield part, step, 0
    yield part, 0, 1


def _clear(data: Path) -> None:
    """Remove what a failed restore has written, the journal last."""
    for folder in ("keys", "code"):
        remove_tree(data / folder)
    for name in (_UNFINISHED, _JOURNAL):
        (data / name).unlink(missing_ok=True)
