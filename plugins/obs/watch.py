"""Changes of the files in folders and their subfolders, reported by the kernel (inotify).

A file counts as changed when it is closed after writing, moved into or out of the folder, linked, or deleted. A new
subfolder is watched first, and then reported as changed with all its files, so that no file in it is missed between the
two steps.

All folders share one inotify instance, since a user may have 128. The kernel does not report that another folder takes
the place of a watched one, for instance by a mount or by another link above it. Every second, the paths are looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from engine import SettingsError, SourceIdentity
from plugins.obs.folder import FolderStore, is_object

if TYPE_CHECKING:
    from asyncinotify import Event, Inotify, Mask

LOOK = 1.0  #: seconds


class FolderWatch:
    """Collector of the changes in one bucket's folder for one trigger. ``look`` returns the folder's identity."""

    def __init__(self, root: Path, look: Callable[[], str], identity: str) -> None:
        self.root, self.look = root, look
        self.identity = SourceIdentity(identity, lambda: anyio.to_thread.run_sync(look))
        self.wake = asyncio.Event()
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._end: Exception | None = None

    async def changes(self) -> tuple[set[str], set[str]]:
        """Wait for a change, and return the keys of all files and folders that have changed since the last call.

        Keys of folders have a slash at the end, and an empty text stands for the whole tree.

        Raises SourceReplaced if another folder has taken the place of this one, or none.
        """
        await self.wake.wait()
        self.wake.clear()
        if self._end is not None:
            raise self._end
        await self.identity.check()
        changed = self._files, self._folders
        self._files, self._folders = set(), set()
        return changed

    def report(self, path: Path, *, is_folder: bool = False) -> None:
        """Note a changed file or folder, unless it cannot be an object."""
        key = path.relative_to(self.root).as_posix()
        if not all(is_object(name) for name in key.split("/")):
            return
        if is_folder:
            self._folders.add("" if key == "." else f"{key}/")
        else:
            self._files.add(key)
        self.wake.set()

    def end(self, error: Exception) -> None:
        self._end = error
        self.wake.set()


class FolderWatches:
    """Watches of all triggers' folders."""

    def __init__(self) -> None:
        self._inotify: Inotify
        self._kinds: type[Mask]
        self._opened = asyncio.Event()
        self._watches: dict[Path, list[FolderWatch]] = {}

    async def run(self) -> None:
        """Read the kernel's reports, and look at the folders' paths, until cancelled."""
        from asyncinotify import Inotify, Mask

        with Inotify(cache_size=100) as self._inotify:
            self._kinds = Mask
            self._opened.set()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._look)
                    while True:
                        await self._handle(await self._inotify.get())
            finally:
                self._opened.clear()
                for watch in chain(*self._watches.values()):
                    watch.end(ConnectionError("the kernel's reports of changes ended"))

    @asynccontextmanager
    async def watched(self, store: FolderStore, bucket: str) -> AsyncIterator[FolderWatch]:
        """Watch a bucket's folder and its subfolders, if they exist, until the block ends.

        Raises SettingsError if the library asyncinotify is not installed.
        """
        if find_spec("asyncinotify") is None:
            raise SettingsError("OBS triggers on a folder need a library: pip install '.[obs]' in the clone")
        await self._opened.wait()
        look = partial(store.identity, bucket)
        watch = FolderWatch(store.bucket_path(bucket), look, await anyio.to_thread.run_sync(look))
        same = self._watches.setdefault(watch.root, [])
        same.append(watch)
        try:
            await anyio.to_thread.run_sync(self._add, watch.root)
            yield watch
        finally:
            same.remove(watch)
            if not same:
                del self._watches[watch.root]
                for inner in self._inotify.watches if self._opened.is_set() else []:
                    if inner.path.is_relative_to(watch.root):
                        with suppress(OSError):  # the folder was deleted
                            self._inotify.rm_watch(inner)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK)
            watches = [*chain(*self._watches.values())]
            identities = await anyio.to_thread.run_sync(lambda watches: [watch.look() for watch in watches], watches)
            for watch, identity in zip(watches, identities, strict=True):
                if identity != watch.identity.text:
                    watch.wake.set()

    def _add(self, folder: Path) -> None:
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
            return  # removed meanwhile
        for subfolder in inside:
            self._add(subfolder)

    async def _handle(self, event: Event) -> None:
        kind, mask, path = self._kinds, event.mask, event.path or Path()
        if mask & kind.Q_OVERFLOW:
            for watched in list(self._watches):
                await self._rescan(watched, watched)
        root = next((folder for folder in (path, *path.parents) if folder in self._watches), None)
        if root is None:
            return
        if path == root or mask & kind.UNMOUNT:
            if mask & kind.DELETE_SELF:  # another folder may get the same inode
                for watch in self._watches[root]:
                    watch.identity.text = f"deleted {watch.identity.text}"
            await self._rescan(root, root)
        elif mask & kind.ISDIR:
            await self._rescan(root, path)
        elif not mask & kind.CREATE or _is_linked(path):
            for watch in self._watches[root]:
                watch.report(path)

    async def _rescan(self, root: Path, folder: Path) -> None:
        try:
            await anyio.to_thread.run_sync(self._add, folder)
        except OSError as error:  # for instance, the user has too many watches
            for watch in self._watches.get(root, ()):
                watch.end(error)
        for watch in self._watches.get(root, ()):
            watch.report(folder, is_folder=True)


def _is_linked(path: Path) -> bool:
    """Return whether a new file is a hard link to another file.

    Its content is then complete, and no write will follow.
    """
    try:
        return path.lstat().st_nlink > 1
    except OSError:
        return False
