"""Backup of a data directory: a copy of the storage, then the code packages that the copy refers to.

Packages are copied last. The running engine stores a package before a function that refers to it, and removes none, so
that all packages of the copy exist. Those of the last whole backup in the same folder are linked from it.

At the end, the backup is read from its disk and checked as ``restore`` does. A backup with problems names them.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.from_thread
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.code.package_files import OnRead, copy_file, counting, digest_of, packed_files
from engine.code.unpacking import fsync_tree, make_folders, write_file
from engine.errors import BackupFailed, BackupRuns, DataDirectoryUnusable
from engine.isolation.orphans import remove_tree
from engine.maintenance.backup_folder import BackupFolder, Manifest, backups_in
from engine.maintenance.verification import verify
from engine.model.clock import Clock
from engine.protocols import CopySteps
from engine.storage import Problem, journal_name, packages_in

#: Copies the storage into a folder. Calls the function with the bytes copied so far and all bytes.
CopyStorage = Callable[[Path, Callable[[int, int], None]], Awaitable[CopySteps]]


_State = Literal["journal", "code", "check", "done"]


class BackupProgress(Struct, frozen=True, kw_only=True):
    """State of a backup that is being made."""

    state: _State  #: part that is copied, or the check of the copy
    copied: int  #: bytes of all parts; during the check, those that were checked
    total: int  #: bytes of the parts known so far; the size of the packages is known after the journal is copied


class BackupMade(BackupProgress, frozen=True, kw_only=True):
    """Result of a backup."""

    path: str
    packages: int
    missing: tuple[str, ...]  #: packages that the data directory lacks
    problems: tuple[Problem, ...]  #: for which ``restore`` refuses the backup
    steps: int  #: steps of the copy of the journal, each of which holds up writes
    slow_steps: int  #: steps that took longer than 5 ms
    longest_step: float  #: seconds


OnProgress = Callable[[BackupProgress], None]


class Backups:
    """Maker of backups of one data directory, one at a time.

    They are made below the folder ``below``; None: anywhere. ``keep_free`` bytes stay free on the disk of the data
    directory. ``version`` is that of functiond.
    """

    def __init__(
        self,
        data: Path,
        copy_storage: CopyStorage,
        *,
        below: Path | None,
        keep_free: int,
        clock: Clock,
        version: str,
    ) -> None:
        self._data, self._copy_storage, self._below = data, copy_storage, below
        self._keep_free, self._clock, self._version = keep_free, clock, version
        self._recover = (
            f"stop the engine, run `functiond verify {data}`, and if it finds this too, `functiond recover {data}`"
        )
        self._running = False

    async def destination(self, path: str) -> BackupFolder:
        """Return the destination of a new backup. Its disk must have room for the journal.

        Raises BadDestination or DestinationExists if a backup cannot be made there, BackupFailed if the disk is full,
        and BackupRuns if another backup runs.
        """
        if self._running:
            raise BackupRuns
        return await anyio.to_thread.run_sync(self._destination, path)

    async def make(self, folder: BackupFolder, on_progress: OnProgress) -> BackupMade:
        """Make a backup. ``on_progress`` is called after each step.

        Raises BackupFailed if the destination cannot be written, or if the functions in the journal cannot be read, and
        the errors of ``Storage.copy_to``. If the backup fails or is cancelled, all that was written is removed.
        """
        if self._running:
            raise BackupRuns
        self._running = True
        try:
            await anyio.to_thread.run_sync(folder.create)
            try:
                return await self._make(folder, on_progress)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_tree, folder.partial)
                raise
        except OSError as error:
            raise BackupFailed(str(folder.path), error) from error
        finally:
            self._running = False

    def _destination(self, path: str) -> BackupFolder:
        folder = BackupFolder(path, self._data, self._below)
        journal = self._data / "journal.db"
        folder.check_room(journal.stat().st_size if journal.exists() else 0, self._reserve(folder))
        return folder

    def _reserve(self, folder: BackupFolder) -> int:
        """Return the bytes that a backup must leave free on the disk of its destination."""
        same = folder.path.parent.stat().st_dev == self._data.stat().st_dev
        return self._keep_free if same else 0

    async def _make(self, folder: BackupFolder, on_progress: OnProgress) -> BackupMade:
        size = 0

        def note(copied: int, total: int) -> None:
            nonlocal size
            size = total
            on_progress(BackupProgress(state="journal", copied=copied, total=total))

        steps = await self._copy_storage(folder.partial, note)
        return await anyio.to_thread.run_sync(self._complete, folder, size, steps, on_progress)

    def _complete(self, folder: BackupFolder, size: int, steps: CopySteps, on_progress: OnProgress) -> BackupMade:
        """Add the packages to a copy of the storage of ``size`` bytes, check all, and finish the folder.

        Runs in a worker's thread.
        """

        def tell(state: _State, copied: int) -> None:
            anyio.from_thread.check_cancelled()
            progress = BackupProgress(state=state, copied=copied, total=max(copied, total))
            anyio.from_thread.run_sync(on_progress, progress)

        packages = self._packages(folder)
        total = size + sum(packages.sizes.values())
        sums = self._copy_packages(folder, packages, counting(partial(tell, "code"), size))
        note = counting(partial(tell, "check"))
        sums["journal.db"] = digest_of(folder.partial / "journal.db", "sha256", note)
        problems = self._check(folder, note)
        made_at = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="seconds")
        folder.finish(
            Manifest(
                version=self._version,
                journal=packages.journal,
                made_at=made_at,
                packages=packages.stored,
                missing=packages.missing,
                files=sums,
                problems=problems,
            )
        )
        return BackupMade(
            state="done",
            copied=total,
            total=total,
            path=str(folder.path),
            packages=len(packages.stored),
            missing=packages.missing,
            problems=problems,
            steps=steps.made,
            slow_steps=steps.slow,
            longest_step=steps.longest,
        )

    def _packages(self, folder: BackupFolder) -> _Packages:
        """Return the packages to which the copied journal refers. Their files must fit on the disk."""
        try:
            journal, named = journal_name(folder.partial), packages_in(folder.partial)
        except DataDirectoryUnusable as error:
            raise BackupFailed(str(folder.path), error.problem, self._recover) from error
        code, files = self._data / "code", dict[str, Path]()
        for names in (packed_files(code, named[name]) for name in sorted(named)):
            files |= {f"code/{name}": code / names[0] for name in names}
        sizes = {name: source.stat().st_size for name, source in files.items()}
        stored = tuple(name for name in sorted(named) if f"code/{name}.package" in files)
        whole = ((path, manifest.files) for path, manifest in backups_in(folder.path.parent, journal) if manifest.whole)
        last, known = next(whole, (folder.path, {}))
        folder.check_room(sum(sizes[name] for name in sizes.keys() - known), self._reserve(folder))
        return _Packages(
            journal=journal,
            stored=stored,
            missing=tuple(sorted(named.keys() - set(stored))),
            files=files,
            sizes=sizes,
            last=last,
            known=known,
        )

    def _copy_packages(self, folder: BackupFolder, packages: _Packages, note: OnRead) -> dict[str, str]:
        """Add the packages to the folder, and sync it to disk. Return the SHA-256 of each file."""
        sums = dict[str, str]()
        if packages.files:
            write_file(folder.partial / "code/.journal", [packages.journal.encode()], 0o600)
            sums["code/.journal"] = digest_of(folder.partial / "code/.journal", "sha256")
        for name, source in packages.files.items():
            linked, expected = packages.last / name, packages.known.get(name)
            sums[name] = place(source, folder.partial / name, linked, expected, note)
        fsync_tree(folder.partial, bool)
        return sums

    def _check(self, folder: BackupFolder, note: OnRead) -> tuple[Problem, ...]:
        """Return the problems for which ``restore`` would refuse the folder."""
        problems = [*verify(folder.partial, note, packed=True)]
        note(0)  # raises if the caller is cancelled, which ends a check of the journal with a problem only
        return tuple(
            problem if problem.part == "code" else replace(problem, advice=self._recover) for problem in problems
        )


class _Packages(Struct, frozen=True, kw_only=True):
    """Code packages of a backup. ``known`` has the SHA-256 of files in ``last``, the last whole backup beside it."""

    journal: str  #: name of the journal that refers to them
    stored: tuple[str, ...]
    missing: tuple[str, ...]  #: those that the data directory lacks
    files: dict[str, Path]  #: sources, by their path in the backup
    sizes: dict[str, int]  #: bytes, by the same path
    last: Path
    known: dict[str, str]


def place(source: Path, target: Path, linked: Path, expected: str | None, on_step: OnRead) -> str:
    """Link a file of the last backup if it is as ``expected``, else copy ``source``. Return its SHA-256."""
    make_folders(target.parent)
    with suppress(OSError):  # on other disks, and some file systems
        os.link(linked, target)
        if not target.is_symlink() and digest_of(target, "sha256") == expected:
            on_step(target.stat().st_size)
            return expected
    target.unlink(missing_ok=True)
    for step in copy_file(source, target):
        on_step(step)
    return digest_of(target, "sha256")
