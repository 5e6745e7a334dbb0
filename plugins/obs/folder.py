"""A folder as an object store: a subfolder for each bucket, a file for each object, at its key.

Nothing outside the folder is read or written, whatever keys and symbolic links say.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from engine import ObjectMissing, StoreRefused, StoreUnavailable
from plugins.obs.store import BLOCK, Listing, StoredObject

_UNFINISHED = ".functiond-"


class FolderStore:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    @asynccontextmanager
    async def read(self, bucket: str, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await anyio.to_thread.run_sync(self._open, bucket, key)
        async with anyio.wrap_file(file):
            yield _blocks(file)

    async def write(self, bucket: str, key: str, content: bytes) -> str:
        return await anyio.to_thread.run_sync(self._write, bucket, key, content)

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        return await anyio.to_thread.run_sync(self._find, bucket, key)

    async def delete(self, bucket: str, key: str) -> None:
        await anyio.to_thread.run_sync(self._delete, bucket, key)

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        return await anyio.to_thread.run_sync(self._list, bucket, prefix, after, limit)

    def place(self, bucket: str) -> Path:
        """A bucket's folder, which may be missing."""
        root = (self._folder / bucket).resolve()
        if root.parent != self._folder.resolve():
            raise ObjectMissing(bucket, "", "bucket")
        return root

    # --- in a thread ----------------------------------------------------------------------------------------

    def _open(self, bucket: str, key: str) -> BinaryIO:
        path = self._path(bucket, key)
        if not self.place(bucket).is_dir():
            raise ObjectMissing(bucket, key, "bucket")
        if not os.path.isfile(path):  # also what would hold up its reader, such as a pipe
            raise ObjectMissing(bucket, key)
        try:
            return path.open("rb")
        except PermissionError as error:
            raise StoreRefused(f"{error.strerror} for its folder") from None
        except OSError as error:
            raise StoreUnavailable(error.strerror or str(error)) from None

    def _write(self, bucket: str, key: str, content: bytes) -> str:
        path = self._path(bucket, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise StoreRefused(f"in a folder, {key} cannot lie below or above another object") from None
        except OSError as error:
            raise StoreUnavailable(error.strerror or str(error)) from None
        return _etag(path.stat())

    def _list(self, bucket: str, prefix: str, after: str, limit: int) -> Listing:
        root = self.place(bucket)
        if not root.is_dir():
            raise ObjectMissing(bucket, prefix, "bucket")
        try:
            page = list(islice(_objects(root, "", prefix, after), limit + 1))
        except OSError as error:  # what cannot be read must not seem to be gone
            raise StoreUnavailable(f"{error.strerror} ({error.filename})") from None
        return Listing(objects=page[:limit], more=len(page) > limit)

    def _find(self, bucket: str, key: str) -> StoredObject | None:
        try:
            return _object(self._path(bucket, key), key)
        except (ObjectMissing, NotADirectoryError):
            return None

    def _delete(self, bucket: str, key: str) -> None:
        try:
            self._path(bucket, key).unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError):  # no object has this key
            return
        except PermissionError as error:
            raise StoreRefused(f"{error.strerror} for its folder") from None
        except OSError as error:
            raise StoreUnavailable(error.strerror or str(error)) from None

    def _path(self, bucket: str, key: str) -> Path:
        """Raises ObjectMissing for a key that is no plain path, or leads out of the bucket."""
        parts = key.split("/")
        path = self.place(bucket).joinpath(*parts)
        plain = not any(part in ("", ".", "..") for part in parts) and not parts[-1].startswith(_UNFINISHED)
        if not plain or os.path.realpath(path) != str(path):
            raise ObjectMissing(bucket, key)
        return path


def _replace(path: Path, content: bytes) -> None:
    """On disk once this returns; what fails leaves nothing."""
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_object(name: str) -> bool:
    """Whether a file of that name counts: not what is being written here, nor what no key could be."""
    try:
        return not name.startswith(_UNFINISHED) and bool(name.encode())
    except UnicodeEncodeError:
        return False


def _objects(folder: Path, base: str, prefix: str, after: str) -> Iterator[StoredObject]:
    """In the order of keys; ``base`` is what all keys in the folder begin with."""
    for key, is_folder in _entries(folder, base):
        if not is_folder:
            one = _object(folder / key[len(base) :], key) if key.startswith(prefix) and key > after else None
            if one is not None:
                yield one
        elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
            yield from _objects(folder / key[len(base) : -1], key, prefix, after)


def _entries(folder: Path, base: str) -> list[tuple[str, bool]]:
    """Keys, with a slash behind those of folders. (Texts have the order of their bytes in UTF-8.)"""
    try:
        with os.scandir(folder) as entries:
            there = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if is_object(entry.name)]
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile
        return []
    return sorted((f"{base}{name}/" if is_folder else base + name, is_folder) for name, is_folder in there)


def _object(path: Path, key: str) -> StoredObject | None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # gone meanwhile
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return StoredObject(key=key, size=status.st_size, etag=_etag(status), modified_at=status.st_mtime)


def _etag(status: os.stat_result) -> str:
    """Another one for each state of a file, without reading it."""
    state = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
    return hashlib.md5(state.encode(), usedforsecurity=False).hexdigest()


async def _blocks(file: BinaryIO) -> AsyncIterator[bytes]:
    while block := await anyio.to_thread.run_sync(file.read, BLOCK):
        yield block
