"""Hears what changes below a folder, from the kernel: nothing is looked at again and again.

A file counts once it is closed after writing, or moved to its place. A new subfolder is told as a whole after it is
watched, so that what comes into it is missed by neither the watch nor the look that follows.
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
    """Places relative to the folder."""

    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()  #: with a slash behind; an empty one is the whole


@asynccontextmanager
async def watched(root: Path) -> AsyncIterator[FolderWatch]:
    """Hears everything from when the block is entered. Raises ObjectMissing once the folder is gone."""
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
    def __init__(self, root: Path, inotify: Inotify) -> None:
        from asyncinotify import Mask

        self._root, self._inotify = root, inotify
        self._kinds: type[Mask] = Mask
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._heard = asyncio.Event()

    async def changes(self) -> Changed:
        """Wait for some; gives all since the last call."""
        await self._heard.wait()
        self._heard.clear()
        changed = Changed(files=frozenset(self._files), folders=frozenset(self._folders))
        self._files.clear()
        self._folders.clear()
        return changed

    def add(self, folder: Path) -> None:
        """Watch a folder and all in it. Blocks; a folder first, then what is in it, so that nothing slips between."""
        kind = self._kinds
        wanted = kind.CREATE | kind.CLOSE_WRITE | kind.MOVED_FROM | kind.MOVED_TO | kind.DELETE
        wanted |= kind.DELETE_SELF | kind.MOVE_SELF | kind.ONLYDIR | kind.DONT_FOLLOW
        try:
            self._inotify.add_watch(folder, wanted).path = folder  # it may have been watched elsewhere
            inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            if folder == self._root:
                raise ObjectMissing(folder.name, "", "bucket") from None
            return  # gone again
        for one in inside:
            self.add(one)

    async def listen(self) -> None:
        while True:
            await self._hear(await self._inotify.get())

    # --- inside ---------------------------------------------------------------------------------------------

    async def _hear(self, event: Event) -> None:
        kind, mask = self._kinds, event.mask
        if mask & kind.Q_OVERFLOW:
            await self._look_again(self._root)
        elif mask & (kind.DELETE_SELF | kind.MOVE_SELF):
            if event.watch is not None and event.watch.path == self._root:
                raise ObjectMissing(self._root.name, "", "bucket")
        elif (path := event.path) is None or event.name is None:
            return
        elif mask & kind.ISDIR:
            await self._look_again(path)
        elif not mask & kind.CREATE or _is_linked(path):
            self._tell(self._files, path.relative_to(self._root).as_posix())

    async def _look_again(self, folder: Path) -> None:
        await anyio.to_thread.run_sync(self.add, folder)
        place = folder.relative_to(self._root).as_posix()
        self._tell(self._folders, "" if place == "." else f"{place}/")

    def _tell(self, places: set[str], place: str) -> None:
        if all(is_object(name) for name in place.split("/") if name):
            places.add(place)
            self._heard.set()


def _is_linked(path: Path) -> bool:
    """Whether a new file is complete already, being another's second name."""
    try:
        return path.lstat().st_nlink > 1
    except OSError:
        return False
