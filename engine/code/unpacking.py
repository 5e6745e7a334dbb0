"""Unpacking of untrusted zip files: files stay inside the folder, and the size is bounded.

Names and modes are checked before writing. Sizes are counted from the unpacked bytes, because sizes declared in an
archive may be false. Files are created exclusively, so two entries of one name are rejected.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from engine.errors import DiskLow, InvalidField
from engine.isolation.machine import free_space, fsync_path

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CENTRAL = b"PK\x01\x02"  #: signature of each entry of the zip's directory
_ENCRYPTED = 0x1
_UTF8 = 0x800
_BLOCK = 1 << 18
_DEPTH = 64
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class Limits(Struct, frozen=True, kw_only=True):
    entries: int = 65_535
    unpacked: int = 1_500 << 20  #: bytes of all files
    ratio: int = 100  #: unpacked bytes per packed byte
    ratio_from: int = 16 << 20  #: unpacked bytes before ``ratio`` applies
    keep_free: int = 0  #: free bytes that must remain on the disk


def unpack(package: BinaryIO, folder: Path, limits: Limits, pause: Callable[[], object] = bool) -> None:
    """Unpack a zip into the empty ``folder``. On return the files are synced to disk, but perhaps not the folders.

    Calls ``pause`` between its steps. Raises InvalidField if the zip is damaged, unsafe or exceeds ``limits``; DiskLow
    if the disk is nearly full; OSError if a file cannot be written.
    """
    # Count entries before reading the directory, because objects for a million entries would exhaust memory.
    if _count(package, _CENTRAL) > limits.entries:
        raise _rejected(f"it has more than {limits.entries} entries")
    try:
        with _opened(package) as archive:
            entries = [(_path(info), info) for info in reversed(archive.infolist())]
            budget = _Budget(package.seek(0, os.SEEK_END), limits, folder, pause)
            archive.NameToInfo.clear()
            archive.filelist.clear()
            while entries:  # freeing all entries at once would hold the interpreter
                path, info = entries.pop()
                if info.is_dir():
                    make_folders(folder / path)
                else:
                    write_file(folder / path, _blocks(archive, info, budget), _mode(info))
                pause()
    except FileExistsError as error:
        raise _rejected(f"it names {Path(error.filename).name} twice") from None
    except NotADirectoryError as error:
        raise _rejected(f"{Path(error.filename).name} is inside a file") from None


def contents(package: BinaryIO) -> Iterator[tuple[Path, int, int]]:
    """Yield relative path, size and CRC-32 of each file in a zip. Raises InvalidField if it is damaged."""
    with _opened(package) as archive:
        for path, info in files_of(archive):
            yield Path(path), info.file_size, info.CRC


def files_of(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield relative path and entry of each file in a zip that ``unpack`` has accepted."""
    for info in archive.infolist():
        if not info.is_dir():
            yield str(_path(info)), info


def unpack_changed(package: BinaryIO, folder: Path, limits: Limits) -> list[Path]:
    """Unpack again the files whose content differs from the package. Return their paths.

    Raises InvalidField if the zip is damaged.
    """
    changed: list[Path] = []
    budget = _Budget(package.seek(0, os.SEEK_END), limits, folder)
    with _opened(package) as archive:
        for info in archive.infolist():
            path = _path(info)
            if info.is_dir() or "__pycache__" in path.parts or has_sum(folder / path, info.file_size, info.CRC):
                continue
            replace_file(folder / path, _blocks(archive, info, budget), _mode(info))
            changed.append(path)
    return changed


@contextmanager
def _opened(package: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open a zip until the block ends. Raises InvalidField if it cannot be read.

    If the disk failed, which ``zipfile`` hides, its error is raised instead.
    """
    try:
        with zipfile.ZipFile(package) as archive:
            yield archive
    except _BROKEN as error:
        if isinstance(error.__context__, OSError) and error.__context__.errno == errno.EIO:
            raise error.__context__ from None
        raise _rejected(f"it is not a sound zip file: {error}") from None


def has_sum(path: Path, size: int, checksum: int) -> bool:
    """Return whether a file exists, and has this size and CRC-32."""
    actual = 0
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            while block := file.read(_BLOCK):
                actual = zlib.crc32(block, actual)
    except FileNotFoundError:
        return False
    return actual == checksum


def _count(package: BinaryIO, mark: bytes) -> int:
    count, rest = 0, b""
    while block := package.read(_BLOCK):
        block = rest + block
        count += block.count(mark)
        rest = block[1 - len(mark) :]
    return count


class _Budget:
    """Counter of the bytes that a zip unpacks to.

    Raises InvalidField if they exceed a limit of the zip, or DiskLow if the disk is nearly full.
    """

    def __init__(self, packed: int, limits: Limits, folder: Path, pause: Callable[[], object] = bool) -> None:
        self._packed, self._limits, self._folder, self._pause = packed, limits, folder, pause
        self._spent = 0

    def spend(self, size: int) -> None:
        self._spent += size
        if self._spent > self._limits.unpacked:
            raise _rejected(f"it unpacks to more than {self._limits.unpacked} bytes")
        if self._spent > max(self._limits.ratio_from, self._limits.ratio * self._packed):
            raise _rejected(f"it unpacks to more than {self._limits.ratio} times its size")
        check_free(self._folder, self._limits.keep_free)
        self._pause()


def check_free(folder: Path, needed: int) -> None:
    """Raise DiskLow unless the disk of ``folder`` has ``needed`` free bytes."""
    if (free := free_space(folder)) < needed:
        raise DiskLow(free, needed)


def _path(info: zipfile.ZipInfo) -> Path:
    """Return the relative path of a zip entry.

    Raises InvalidField if its name is not a plain relative path or is too long, its type is neither file nor folder, or
    it is encrypted or compressed by a method other than deflate.
    """
    name = name_of(info)
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if name.startswith("/") or "\\" in name or not name.isprintable() or ":" in name[:2]:
        raise _rejected(f"the name {name!r} is not a plain relative path with / between its parts")
    if any(part in ("", "..") or len(part.encode()) > 255 for part in parts):
        raise _rejected(f"the name {name!r} is not a plain relative path of parts of up to 255 bytes")
    if len(parts) > _DEPTH or len(name.encode()) > 1024:
        raise _rejected(f"the name {name!r} is longer than 1024 bytes or {_DEPTH} folders")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > name.endswith("/"):
        raise _rejected(f"{name} is neither a file nor a folder (links and devices are not allowed)")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise _rejected(f"{name} is encrypted, or compressed by another method than deflate")
    return Path(*parts)


def name_of(info: zipfile.ZipInfo) -> str:
    """Return the name of a zip entry, read as UTF-8 even if its flag is not set, as in zips made by Linux tools.

    Raises InvalidField if the name cannot be decoded.
    """
    if info.flag_bits & _UTF8:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        raise _rejected(f"the name {info.orig_filename!r} is not UTF-8") from None


def _mode(info: zipfile.ZipInfo) -> int:
    return 0o755 if info.external_attr >> 16 & 0o111 else 0o644


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    with archive.open(info) as source:
        while block := source.read(_BLOCK):
            budget.spend(len(block))
            yield block


def make_folders(path: Path) -> None:
    """Create folders like ``mkdir -p``, with mode 755 regardless of the umask, so that instances can read them."""
    if path.is_dir():
        return
    make_folders(path.parent)
    path.mkdir()
    path.chmod(0o755)


def write_file(path: Path, blocks: Iterable[bytes], mode: int) -> None:
    """Create a file with its parent folders and sync it to disk.

    Raises FileExistsError if the path exists, also as a symbolic link.
    """
    make_folders(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def replace_file(path: Path, blocks: Iterable[bytes], mode: int) -> None:
    """Replace a file by one with other content, in one step."""
    new = path.with_name(f".new-{path.name[:200]}")
    new.unlink(missing_ok=True)
    write_file(new, blocks, mode)
    new.rename(path)
    fsync_path(path.parent)


def fsync_tree(folder: Path, pause: Callable[[], object]) -> None:
    """Sync ``folder`` and all folders below it to disk, but not the files in them. Call ``pause`` after each."""
    for parent, _, _ in os.walk(folder, topdown=False):
        fsync_path(Path(parent))
        pause()


def _rejected(problem: str) -> InvalidField:
    return InvalidField("func_code", "a zip package", problem)
