"""Check of a stopped engine's data directory, or of a backup. Functions of this module block the calling thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.code.package_files import OnRead, digest_of, package_problem
from engine.errors import RESTORE, BackupUnusable, DataDirectoryUnusable
from engine.maintenance.backup_folder import OTHER, Manifest, backups_in, is_backup, links_in, read_manifest
from engine.storage import Problem, find_problems, journal_name, packages_in

_DEPLOY = "deploy the functions that use it again"


def verify(folder: Path, on_read: OnRead = int, *, packed: bool = False) -> Iterator[Problem]:
    """Yield the problems of a data directory or backup, which the caller keeps from being written.

    Checksums of files, pages and rows of the journal, its counters and cursors, and code packages are checked; code is
    unpacked unless ``packed``, as in backups. ``on_read`` is called with the bytes of files that were read, and with 0
    during checks of the journal.
    """
    if is_backup(folder):
        if problem := links_in(folder):
            yield Problem(part="backup", problem=problem, advice=OTHER)
            return
        for problem in _differences(folder, on_read):
            yield Problem(part="backup", problem=problem, advice=OTHER)
    yield from find_problems(folder, on_read)
    yield from _code(folder, on_read, packed=packed or is_backup(folder))


def newest_whole_backup(folders: Iterable[Path], journal: str) -> tuple[Path, Manifest] | None:
    """Return the newest backup of a journal without problems that lies in one of the folders, or None."""
    backups = [backup for folder in folders if folder.is_dir() for backup in backups_in(folder, journal)]
    backups.sort(key=lambda backup: backup[1].made_at, reverse=True)
    return next((backup for backup in backups if next(verify(backup[0]), None) is None), None)


def _differences(backup: Path, on_read: OnRead) -> Iterator[str]:
    """Yield how a backup differs from its description."""
    present = {str(path.relative_to(backup)) for path in backup.rglob("*")}
    try:
        manifest = read_manifest(backup)
        for name, expected in manifest.files.items():
            if name not in present:
                yield f"{name} is missing"
            elif digest_of(backup / name, "sha256", on_read) != expected:
                yield f"{name} differs from its SHA-256 in backup.json"
        if manifest.journal != (actual := journal_name(backup)):
            yield f"backup.json describes journal {manifest.journal}, but journal.db is {actual}"
    except (BackupUnusable, OSError) as error:
        yield str(error)
    except DataDirectoryUnusable:
        return  # a problem of the journal


def _code(folder: Path, on_read: OnRead, *, packed: bool) -> Iterator[Problem]:
    code = folder / "code"
    try:
        packages = packages_in(folder)
        name = journal_name(folder)
    except DataDirectoryUnusable as error:
        yield Problem(part="catalog", problem=error.problem, advice=RESTORE)
        return
    for package in packages.values():
        if problem := package_problem(code, package, on_read, packed=packed):
            yield Problem(part="code", problem=problem, advice=f"{_DEPLOY}, or {RESTORE}")
    mark = code / ".journal"
    if mark.is_file() and (text := mark.read_text(errors="replace")) != name:
        problem = f"the packages in code/ belong to journal {text}, but journal.db is {name}"
        yield Problem(part="code", problem=problem, advice=f"put the right code/ beside journal.db, or {RESTORE}")
