"""Changes of the files in a folder and its subfolders, reported by the kernel (inotify) without polling.

A file counts as changed when it is closed after writing, moved into or out of the folder, linked, or deleted. A new
subfolder is watched first, and then reported as changed with all its files, so that no file in it is missed between the
two steps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from msgspec import Struct

from engine import ObjectMissing, SettingsError
from plugins.obs.folder import is_object

if TYPE_CHECKING:
    from asyncinotify import Event, Inotify, Mask


class Changed(Struct, frozen=True, kw_only=True):
    """Paths of changed files and folders, relative to the watched folder."""

    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()  #: each with a slash at its end; empty text: the whole tree


@asynccontextmanager
async def watched(root: Path) -> AsyncIterator[FolderWatch]:
    """Watch a folder and its subfolders until the block ends.

    Raises ObjectMissing if the folder does not exist, or when it is removed or moved; SettingsError if the library
    asyncinotify is not installed.
    """
    try:
        from asyncinotify import Inotify
    except ImportError:
        raise SettingsError("OBS triggers on a folder need a library: pip install '.[obs]' in the clone") from None
    with Inotify(cache_size=100) as inotify:
        watch = FolderWatch(root, inotify)
        await anyio.to_thread.run_sync(watch.add, root)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.listen)
            yield watch
            tasks.cancel_scope.cancel()


class FolderWatch:
    """Collector of the changes in one folder and its subfolders."""

    def __init__(self, root: Path, inotify: Inotify) -> None:
        from asyncinotify import Mask

        self._root, self._inotify = root, inotify
        self._kinds: type[Mask] = Mask
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._changed = asyncio.Event()

    async def changes(self) -> Changed:
        """Wait for a change, and return all changes since the last call."""
        await self._changed.wait()
        self._changed.clear()
        changed = Changed(files=frozenset(self._files), folders=frozenset(self._folders))
        self._files.clear()
        self._folders.clear()
        return changed

    def add(self, folder: Path) -> None:
        """Watch a folder and all its subfolders. Blocks.

        A folder is watched before its entries are read, so that no new entry is missed.
        """
        kind = self._kinds
        wanted = kind.CREATE | kind.CLOSE_WRITE | kind.MOVED_FROM | kind.MOVED_TO | kind.DELETE
        wanted |= kind.DELETE_SELF | kind.MOVE_SELF | kind.ONLYDIR | kind.DONT_FOLLOW
        try:
            self._inotify.add_watch(folder, wanted).path = folder  # a moved folder keeps its watch: set the new path
            inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            if folder == self._root:
                raise ObjectMissing(folder.name, "", "bucket") from None
            return  # removed meanwhile
        for one in inside:
            self.add(one)

    async def listen(self) -> None:
        while True:
            await self._handle(await self._inotify.get())

    # --- inside ---------------------------------------------------------------------------------------------

    async def _handle(self, event: Event) -> None:
        kind, mask = self._kinds, event.mask
        if mask & kind.Q_OVERFLOW:
            await self._rescan(self._root)
        elif mask & (kind.DELETE_SELF | kind.MOVE_SELF):
            if event.watch is not None and event.watch.path == self._root:
                raise ObjectMissing(self._root.name, "", "bucket")
        elif (path := event.path) is None or event.name is None:
            return
        elif mask & kind.ISDIR:
            await self._rescan(path)
        elif not mask & kind.CREATE or _is_linked(path):
            self._report(self._files, path.relative_to(self._root).as_posix())

    async def _rescan(self, folder: Path) -> None:
        await anyio.to_thread.run_sync(self.add, folder)
        path = folder.relative_to(self._root).as_posix()
        self._report(self._folders, "" if path == "." else f"{path}/")

    def _report(self, changed: set[str], path: str) -> None:
        if all(is_object(name) for name in path.split("/") if name):
            changed.add(path)
            self._changed.set()


def _is_linked(path: Path) -> bool:
    """Return whether a new file is a hard link to another file.

    Its content is then complete, and no write will follow.
    """
    try:
        return path.lstat().st_nlink > 1
    except OSError:
        return False
