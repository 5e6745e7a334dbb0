"""Backup of a data directory: a copy of the storage, then the code packages that the copy refers to.

Packages are copied last. The running engine stores a package before a function that refers to it, and removes none, so
that all packages of the copy exist.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.code.package_files import copy_package, size_of
from engine.code.unpacking import fsync_folder, write_file
from engine.errors import BackupFailed, BackupRuns
from engine.maintenance.backup_folder import BackupFolder, Manifest
from engine.model.clock import Clock
from engine.protocols import CopySteps
from engine.storage import journal_name, packages_in

#: Copies the storage into a folder. Calls the function with the bytes copied so far and all bytes.
CopyStorage = Callable[[Path, Callable[[int, int], None]], Awaitable[CopySteps]]


class BackupProgress(Struct, frozen=True, kw_only=True):
    """State of a backup that is being made."""

    state: Literal["journal", "code", "done"]  #: part that is copied
    copied: int  #: bytes of all parts
    total: int  #: bytes of the parts known so far; the size of the packages is known after the journal is copied


class BackupMade(BackupProgress, frozen=True, kw_only=True):
    """Result of a backup."""

    path: str
    packages: int
    missing: tuple[str, ...]  #: packages that the data directory lacks
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

        Raises BackupFailed if the destination cannot be written, and the errors of ``Storage.copy_to``. If the backup
        fails or is cancelled, all that was written is removed.
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
                    await anyio.to_thread.run_sync(folder.discard)
                raise
        except OSError as error:
            raise BackupFailed(str(folder.path), error) from error
        finally:
            self._running = False

    def _destination(self, path: str) -> BackupFolder:
        folder = BackupFolder(path, self._data, self._below)
        folder.check_room(_size(self._data / "journal.db"), self._reserve(folder))
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

        made = await self._copy_storage(folder.partial, note)
        copier = _PackageCopier(self._data / "code", folder.partial / "code")
        await anyio.to_thread.run_sync(copier.find, folder.partial)
        await anyio.to_thread.run_sync(folder.check_room, copier.size, self._reserve(folder))
        copied, total = size, size + copier.size
        with closing(copier.copy()) as steps:
            while (step := await anyio.to_thread.run_sync(next, steps, None)) is not None:
                copied += step
                on_progress(BackupProgress(state="code", copied=copied, total=max(copied, total)))
        await anyio.to_thread.run_sync(self._finish, folder, copier)
        return BackupMade(
            state="done",
            copied=copied,
            total=copied,
            path=str(folder.path),
            packages=len(copier.names),
            missing=tuple(copier.missing),
            steps=made.made,
            slow_steps=made.slow,
            longest_step=made.longest,
        )

    def _finish(self, folder: BackupFolder, copier: _PackageCopier) -> None:
        folder.finish(
            Manifest(
                version=self._version,
                journal=copier.journal,
                made_at=datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="seconds"),
                packages=tuple(copier.names),
                missing=tuple(copier.missing),
            )
        )


class _PackageCopier:
    def __init__(self, code: Path, target: Path) -> None:
        self._code, self._target = code, target
        self.journal = ""  #: name of the journal
        self.names: list[str] = []
        self.missing: list[str] = []
        self.size = 0

    def find(self, copy: Path) -> None:
        """Find the packages that the copy of the storage in the folder ``copy`` refers to."""
        self.journal = journal_name(copy)
        for name in sorted(packages_in(copy)):
            try:
                self.size += size_of(self._code, name)
                self.names.append(name)
            except FileNotFoundError:
                self.missing.append(name)

    def copy(self) -> Generator[int, None, None]:
        """Copy the packages. Yield the number of bytes after each step."""
        if not self.names:
            return
        self._target.mkdir(mode=0o700)
        write_file(self._target / ".journal", [self.journal.encode()], 0o600)
        for name in self.names:
            yield from copy_package(self._code, self._target, name)
        fsync_folder(self._target)


def _size(path: Path) -> int:
    return os.path.getsize(path) if path.exists() else 0
