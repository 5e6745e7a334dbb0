"""Unpacking zip files from strangers: nothing lands outside the folder, and nothing grows without bound.

Names and modes are checked before anything is written; sizes are counted as real bytes come out, since what an
archive says about itself may be a lie. Files are created, never opened, so two entries of one name are refused.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from engine.errors import DiskLow, InvalidField

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CENTRAL = b"PK\x01\x02"  #: begins each entry of the directory
_ENCRYPTED = 0x1
_UTF8 = 0x800
_BLOCK = 1 << 18
_DEPTH = 64
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class Limits(Struct, frozen=True, kw_only=True):
    entries: int = 65_535
    unpacked: int = 1_500 << 20  #: bytes in all
    ratio: int = 100  #: unpacked bytes per packed one ...
    ratio_from: int = 16 << 20  #: ... once this many have come out
    keep_free: int = 0  #: bytes that the disk must have left all the while


def unpack(package: BinaryIO, folder: Path, limits: Limits) -> None:
    """Fill the empty ``folder``. The files are on disk when this returns, the folders may not be.

    Raises InvalidField, DiskLow, OSError.
    """
    # Counted before the directory is read: an object for each of a million entries is an attack of its own.
    if _count(package, _CENTRAL) > limits.entries:
        raise _refused(f"it has more than {limits.entries} entries")
    try:
        with zipfile.ZipFile(package) as archive:
            entries = [(_path(info), info) for info in archive.infolist()]
            budget = _Budget(package.seek(0, os.SEEK_END), limits, folder)
            for path, info in entries:
                _extract(archive, info, folder / path, budget)
    except _BROKEN as error:
        raise _refused(f"it is not a sound zip file: {error}") from None
    except FileExistsError as error:
        raise _refused(f"it names {Path(error.filename).name} twice") from None
    except NotADirectoryError as error:
        raise _refused(f"{Path(error.filename).name} lies in a file") from None


def _count(package: BinaryIO, mark: bytes) -> int:
    found, rest = 0, b""
    while block := package.read(_BLOCK):
        block = rest + block
        found += block.count(mark)
        rest = block[1 - len(mark) :]
    return found


class _Budget:
    """What may still come out of the archive."""

    def __init__(self, packed: int, limits: Limits, folder: Path) -> None:
        self._packed, self._limits, self._folder = packed, limits, folder
        self._spent = 0

    def spend(self, size: int) -> None:
        self._spent += size
        if self._spent > self._limits.unpacked:
            raise _refused(f"it unpacks to more than {self._limits.unpacked} bytes")
        if self._spent > max(self._limits.ratio_from, self._limits.ratio * self._packed):
            raise _refused(f"it unpacks to more than {self._limits.ratio} times its size")
        check_free(self._folder, self._limits.keep_free)


def check_free(folder: Path, needed: int) -> None:
    """Whether the disk of ``folder`` has so many bytes left. Raises DiskLow."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise DiskLow(free, needed)


def _path(info: zipfile.ZipInfo) -> Path:
    """The entry's place below the folder, once its name, kind and method are found harmless."""
    name = _name(info)
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if name.startswith("/") or "\\" in name or not name.isprintable() or ":" in name[:2]:
        raise _refused(f"the name {name!r} is not a plain relative path with / between its parts")
    if any(part in ("", "..") or len(part.encode()) > 255 for part in parts):
        raise _refused(f"the name {name!r} is not a plain relative path of parts of up to 255 bytes")
    if len(parts) > _DEPTH or len(name.encode()) > 1024:
        raise _refused(f"the name {name!r} is longer than 1024 bytes or {_DEPTH} folders")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > name.endswith("/"):
        raise _refused(f"{name} is neither a file nor a folder (links and devices are not taken)")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise _refused(f"{name} is encrypted or not packed by the method deflate")
    return Path(*parts)


def _name(info: zipfile.ZipInfo) -> str:
    """The name as UTF-8, which Linux tools write also without saying so."""
    if info.flag_bits & _UTF8:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        raise _refused(f"the name {info.orig_filename!r} is not UTF-8") from None


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, budget: _Budget) -> None:
    if info.is_dir():
        make_folders(target)
        return
    make_folders(target.parent)
    executable = info.external_attr >> 16 & 0o111
    write_file(target, _blocks(archive, info, budget), 0o755 if executable else 0o644)


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    with archive.open(info) as source:
        while block := source.read(_BLOCK):
            budget.spend(len(block))
            yield block


def make_folders(path: Path) -> None:
    """Like mkdir -p, and readable by whoever runs the code, whatever the umask."""
    if path.is_dir():
        return
    make_folders(path.parent)
    path.mkdir()
    path.chmod(0o755)


def write_file(path: Path, blocks: Iterable[bytes], mode: int) -> None:
    """A new file, on disk; folders above it are made. Raises FileExistsError, rather than follow or overwrite."""
    make_folders(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def fsync_folder(path: Path) -> None:
    _fsync(path, os.O_DIRECTORY)


def fsync_file(path: Path) -> None:
    _fsync(path, os.O_NOFOLLOW)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """All folders from ``folder`` down."""
    for parent, _, _ in os.walk(folder, topdown=False):
        fsync_folder(Path(parent))


def _refused(problem: str) -> InvalidField:
    return InvalidField("func_code", "a zip package", problem)
