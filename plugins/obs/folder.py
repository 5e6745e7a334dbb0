"""Object store in a folder of this machine: a subfolder for each bucket, and in it a file for each object.

The object's key is the file's path in the subfolder. Keys that lead out of the subfolder are rejected, as are
keys with a symbolic link in their path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
from msgspec.structs import replace

from engine import ObjectMissing, StoreRefused, StoreUnavailable
from plugins._shared.outcomes import HOPS, read_hops
from plugins.obs.store import BLOCK, Listing, StoredObject

#: Seconds in which the kernel may give several changes of a file the same time.
TICK = 0.01
_UNFINISHED = ".functiond-"
_HOPS = f"user.{HOPS}"  #: name of an extended attribute


class FolderStore:
    """Object store in a folder. File operations run in threads, so that they do not block the event loop."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    @asynccontextmanager
    async def read(self, bucket: str, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await anyio.to_thread.run_sync(self._open, bucket, key)
        async with anyio.wrap_file(file):
            yield _blocks(file)

    async def write(self, bucket: str, key: str, content: bytes, hops: int = 0) -> str:
        return await anyio.to_thread.run_sync(self._write, bucket, key, content, hops)

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        return await anyio.to_thread.run_sync(self._find, bucket, key)

    async def delete(self, bucket: str, key: str) -> None:
        await anyio.to_thread.run_sync(self._delete, bucket, key)

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        return await anyio.to_thread.run_sync(self._list, bucket, prefix, after, limit)

    def bucket_path(self, bucket: str) -> Path:
        """Return a bucket's folder, which may not exist. Raises ObjectMissing if the name leads out of the store."""
        root = (self._folder / bucket).resolve()
        if "/" in bucket or root.parent != self._folder.resolve():  # ``./in`` would be another name of a bucket
            raise ObjectMissing(bucket, "", "bucket")
        return root

    def identity(self, bucket: str) -> str:
        """Return text that distinguishes a bucket's folder from others at the same path. Blocks.

        The text is empty if the folder does not exist.
        """
        try:
            root = self.bucket_path(bucket)
            status = root.stat()
        except (OSError, ObjectMissing):
            return ""
        return f"folder {root}, inode {status.st_ino} of device {status.st_dev}"

    # --- in a thread ----------------------------------------------------------------------------------------

    def _open(self, bucket: str, key: str) -> BinaryIO:
        path = self._path(bucket, key)
        if not self.bucket_path(bucket).is_dir():
            raise ObjectMissing(bucket, key, "bucket")
        if not os.path.isfile(path):  # a pipe, for example, would block its reader
            raise ObjectMissing(bucket, key)
        try:
            return path.open("rb")
        except PermissionError as error:
            raise StoreRefused(f"{error.strerror} for its folder") from None
        except OSError as error:
            raise StoreUnavailable(error.strerror or str(error)) from None

    def _write(self, bucket: str, key: str, content: bytes, hops: int) -> str:
        path = self._path(bucket, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content, hops)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise StoreRefused(f"in a folder, {key} cannot lie below or above another object") from None
        except OSError as error:
            raise StoreUnavailable(error.strerror or str(error)) from None
        return _etag(path.stat())

    def _list(self, bucket: str, prefix: str, after: str, limit: int) -> Listing:
        root = self.bucket_path(bucket)
        if not root.is_dir():
            raise ObjectMissing(bucket, prefix, "bucket")
        try:
            page = list(islice(_objects(root, "", prefix, after), limit + 1))
        except OSError as error:  # an unreadable object must not seem to be removed
            raise StoreUnavailable(f"{error.strerror} ({error.filename})") from None
        return Listing(objects=page[:limit], more=len(page) > limit)

    def _find(self, bucket: str, key: str) -> StoredObject | None:
        try:
            found = _object(path := self._path(bucket, key), key)
            return found and replace(found, hops=_hops(path))
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
        """Return the path of an object's file.

        Raises ObjectMissing if the key has an empty part, ``.`` or ``..``, or the name of a temporary file; if the
        path has a symbolic link below the bucket's folder; or if the bucket's name leads out of the store.
        """
        parts = key.split("/")
        path = self.bucket_path(bucket).joinpath(*parts)
        plain = not any(part in ("", ".", "..") for part in parts) and not parts[-1].startswith(_UNFINISHED)
        if not plain or os.path.realpath(path) != str(path):
            raise ObjectMissing(bucket, key)
        return path


def stores_hops(folder: str) -> bool:
    """Return whether files in a folder can have attributes, in which hops are stored. Blocks."""
    try:
        os.getxattr(folder, _HOPS)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def _hops(path: Path) -> int:
    try:
        return read_hops(os.getxattr(path, _HOPS, follow_symlinks=False))
    except OSError:
        return 0


def _replace(path: Path, content: bytes, hops: int) -> None:
    """Write a file atomically, and return when it is on disk. A failed write leaves no temporary file."""
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            with suppress(OSError):  # see ``stores_hops``
                os.setxattr(file.fileno(), _HOPS, b"%d" % hops)
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
    """Return whether a file's name may be that of an object: valid UTF-8, and not the name of a temporary file."""
    try:
        return not name.startswith(_UNFINISHED) and bool(name.encode())
    except UnicodeEncodeError:
        return False


def _objects(folder: Path, base: str, prefix: str, after: str) -> Iterator[StoredObject]:
    """Yield a folder's objects that have the prefix and sort after ``after``, sorted by key.

    ``base`` is the folder's path in the bucket, with which the keys of its objects begin.
    """
    for key, is_folder in _entries(folder, base):
        if not is_folder:
            stored = _object(folder / key[len(base) :], key) if key.startswith(prefix) and key > after else None
            if stored is not None:
                yield stored
        elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
            yield from _objects(folder / key[len(base) : -1], key, prefix, after)


def _entries(folder: Path, base: str) -> list[tuple[str, bool]]:
    """Return the sorted keys of a folder's entries, each with True for a subfolder, whose key ends with a slash.

    Python sorts texts by code points; this order equals that of their UTF-8 bytes.
    """
    try:
        with os.scandir(folder) as entries:
            there = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if is_object(entry.name)]
    except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
        return []
    return sorted((f"{base}{name}/" if is_folder else base + name, is_folder) for name, is_folder in there)


def _object(path: Path, key: str) -> StoredObject | None:
    try:
        status = path.lstat()
        if 0 <= time.time() - status.st_ctime < TICK:
            time.sleep(TICK)
            status = path.lstat()
    except FileNotFoundError:  # deleted meanwhile
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    changed_at = str(status.st_ctime_ns)
    return StoredObject(
        key=key, size=status.st_size, etag=_etag(status), modified_at=status.st_mtime, changed_at=changed_at
    )


def _etag(status: os.stat_result) -> str:
    """Return an etag computed from a file's metadata. A changed file has another etag; its content is not read."""
    state = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
    return hashlib.md5(state.encode(), usedforsecurity=False).hexdigest()


async def _blocks(file: BinaryIO) -> AsyncIterator[bytes]:
    while block := await anyio.to_thread.run_sync(file.read, BLOCK):
        yield block
