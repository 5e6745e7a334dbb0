"""Files of stored code packages: their copies for backups, and the check of their contents.

A package is the file ``<sha256>.package``, as received, and the folder ``<sha256>/`` with the unpacked code.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

from engine.code.unpacking import contents, fsync_folder
from engine.errors import InvalidField
from engine.model import CodePackage

_STEP = 8 << 20  #: bytes that are copied and synced at a time
_BLOCK = 1 << 18


def size_of(code: Path, name: str) -> int:
    """Return the bytes of a package and of its unpacked code. Raises FileNotFoundError if one of them is missing."""
    return sum(path.stat(follow_symlinks=False).st_size for path in _files(code, name))


def count_files(code: Path, name: str) -> int:
    return sum(1 for _ in _files(code, name))


def copy_package(code: Path, target: Path, name: str) -> Generator[int, None, None]:
    """Copy a package from one folder of packages to another. Yield the number of bytes after each step.

    On the end of the iteration, the copy is on disk. Raises FileNotFoundError if the package is missing.
    """
    folders = {target / name}
    (target / name).mkdir(mode=0o755)
    pending = 0
    for path in _files(code, name):
        copy = target / path.relative_to(code)
        for folder in reversed(copy.parents):
            if target in folder.parents and folder not in folders:
                folder.mkdir(mode=0o755)
                folders.add(folder)
        for size in copy_file(path, copy):
            pending += size
            if pending >= _STEP:
                yield pending
                pending = 0
    for folder in folders:
        fsync_folder(folder)
    yield pending


def copy_file(source: Path, target: Path) -> Iterator[int]:
    """Copy a file to a new one with the same mode. Yield the number of bytes after each step, synced to disk.

    Raises OSError if ``source`` is a link.
    """
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file,
        open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as output,
    ):
        while size := os.sendfile(output.fileno(), file.fileno(), None, _STEP):
            os.fdatasync(output.fileno())
            yield size
        os.fchmod(output.fileno(), os.fstat(file.fileno()).st_mode & 0o777)
        os.fsync(output.fileno())


def package_problem(code: Path, package: CodePackage) -> str:
    """Return how the files of a package differ from the package as received; an empty text if they do not."""
    original, folder = code / f"{package.sha256}.package", code / package.sha256
    try:
        content, digest = hashlib.sha256(), hashlib.sha512()
        with original.open("rb") as file:
            while block := file.read(_BLOCK):
                content.update(block)
                digest.update(block)
        if digest.hexdigest() != package.digest:
            return f"{original.name} is damaged: its SHA-512 differs from that in the catalog"
        if package.kind == "inline":
            return _inline_problem(original, folder)
        with original.open("rb") as file:
            return _unpacked_problem(folder, contents(file))
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(code)} is missing"
    except (OSError, InvalidField) as error:
        return f"cannot be read: {error}"


def _inline_problem(original: Path, folder: Path) -> str:
    source = original.read_bytes()
    for path in _regular_files(folder):
        name = hashlib.sha256(b"inline\0" + str(path.relative_to(folder)).encode() + b"\0" + source).hexdigest()
        if name == folder.name:
            return "" if path.read_bytes() == source else f"{path.relative_to(folder)} differs from the source received"
    return f"{folder.name}/ has no file with the source"


def _unpacked_problem(folder: Path, expected: Iterator[tuple[Path, int, int]]) -> str:
    for path, size, checksum in expected:
        found = 0
        with (folder / path).open("rb") as file:
            while block := file.read(_BLOCK):
                found = zlib.crc32(block, found)
                size -= len(block)
        if size or found != checksum:
            return f"{folder.name}/{path} differs from the file in the package"
    return ""


def _files(code: Path, name: str) -> Iterator[Path]:
    """Yield all files of a package. Other entries, which functions may have made in the folder, are left out."""
    yield code / f"{name}.package"
    yield from _regular_files(code / name)


def _regular_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _regular_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
