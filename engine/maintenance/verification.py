"""Check of a stopped engine's data directory, or of a backup. Functions of this module block the calling thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.code.package_files import package_problem
from engine.errors import BackupUnusable, DataDirectoryUnusable
from engine.errors.data_errors import RESTORE
from engine.maintenance.backup_folder import OTHER, Manifest, is_backup, links_in, read_manifest
from engine.storage import find_problems, journal_name, packages_in
from engine.storage.problems import Problem

_DEPLOY = "deploy the functions that use it again"


def verify(folder: Path) -> Iterator[Problem]:
    """Yield the problems of a data directory or backup, which the caller keeps from being written.

    Pages and rows of the journal, its counters and cursors, and the contents of code packages are checked.
    """
    if is_backup(folder):
        if problem := links_in(folder):
            yield Problem(part="backup", problem=problem, advice=OTHER)
            return
        yield from _description(folder)
    yield from find_problems(folder)
    yield from _code(folder)


def newest_whole_backup(folders: Iterable[Path], journal: str) -> tuple[Path, Manifest] | None:
    """Return the newest backup of a journal without problems that lies in one of the folders, or None."""
    found = list[tuple[Path, Manifest]]()
    for folder in folders:
        with suppress(OSError):
            for path in filter(is_backup, folder.iterdir()):
                with suppress(BackupUnusable):
                    found.append((path, read_manifest(path)))
    found.sort(key=lambda one: one[1].made_at, reverse=True)
    return next((one for one in found if one[1].journal == journal and next(verify(one[0]), None) is None), None)


def _description(backup: Path) -> Iterator[Problem]:
    try:
        manifest = read_manifest(backup)
        if manifest.journal != journal_name(backup):
            problem = f"backup.json describes journal {manifest.journal}, but journal.db is {journal_name(backup)}"
            yield Problem(part="backup", problem=problem, advice=OTHER)
    except BackupUnusable as error:
        yield Problem(part="backup", problem=str(error), advice=OTHER)
    except DataDirectoryUnusable:
        return  # a problem of the journal


def _code(folder: Path) -> Iterator[Problem]:
    code = folder / "code"
    try:
        packages = packages_in(folder)
        name = journal_name(folder)
    except DataDirectoryUnusable as error:
        yield Problem(part="catalog", problem=error.problem, advice=RESTORE)
        return
    for package in packages.values():
        if problem := package_problem(code, package):
            yield Problem(part="code", problem=problem, advice=f"{_DEPLOY}, or {RESTORE}")
    mark = code / ".journal"
    if mark.is_file() and (found := mark.read_text(errors="replace")) != name:
        problem = f"the packages in code/ belong to journal {found}, but journal.db is {name}"
        yield Problem(part="code", problem=problem, advice=f"put the right code/ beside journal.db, or {RESTORE}")
