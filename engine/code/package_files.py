"""Files of stored code packages: their copies for backups, and the checks of their contents.

A package is the file ``<sha256>.package``, as received, and the folder ``<sha256>/`` with the unpacked code. Backups
have the file only; of inline source also the file in the folder, because the hash in its name includes its path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from engine.code import unpacking
from engine.errors import InvalidField
from engine.model import CodePackage

log = structlog.get_logger("functiond.code")

#: Receives the number of bytes that were read. May raise to end the work.
OnRead = Callable[[int], int | None]

_CHECKS = 2  #: packages checked at the same time
_STEP = 8 << 20  #: bytes that are read, or copied and synced, at a time


def counting(tell: Callable[[int], object], done: int = 0) -> OnRead:
    """Return a function that adds bytes to those that are ``done``, and tells the sum."""

    def add(step: int) -> None:
        nonlocal done
        done += step
        tell(done)

    return add


def packed_files(code: Path, package: CodePackage) -> list[str]:
    """Return the relative paths of the files from which a package can be restored; none if it is missing.

    All have the content of the first.
    """
    original, folder = code / f"{package.sha256}.package", code / package.sha256
    if not original.exists():
        return []
    source = inline_source(original, folder) if package.kind == "inline" else None
    return [original.name, *([str(source.relative_to(code))] if source else [])]


def sizes_of(code: Path, package: CodePackage) -> list[int]:
    """Return the bytes of each file of a package, with those of its unpacked code; nothing if it is missing."""
    sizes = [(code / f"{package.sha256}.package").stat().st_size for _ in packed_files(code, package)]
    if sizes and package.kind != "inline":
        with suppress(InvalidField), (code / f"{package.sha256}.package").open("rb") as file:
            sizes += [size for _, size, _ in unpacking.contents(file)]
    return sizes


def restore_package(code: Path, target: Path, package: CodePackage) -> Iterator[tuple[int, int]]:
    """Copy a package to another folder of packages, and unpack it there. A damaged zip stays packed.

    Yield the numbers of bytes and of complete files after each step. On the end of the iteration, all is on disk.
    """
    files, folder = packed_files(code, package), target / package.sha256
    unpacking.make_folders(folder)
    for name in files:
        unpacking.make_folders((target / name).parent)
        yield from ((size, 0) for size in copy_file(code / files[0], target / name))
        yield 0, 1
    if package.kind != "inline":
        with suppress(InvalidField), (target / files[0]).open("rb") as file:
            unpacking.unpack(file, folder, unpacking.Limits())
            unpacked = sizes_of(code, package)[1:]
            yield sum(unpacked), len(unpacked)
    unpacking.fsync_tree(folder, bool)


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


def digest_of(path: Path, name: str, on_read: OnRead = int) -> str:
    """Return the hash of a file by the algorithm with this name, in hexadecimal digits.

    The file is read from its disk, although the kernel may have it in memory.
    """
    digest = hashlib.new(name)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_STEP >> 3):  # short reads, between which others use the disk
            digest.update(block)
            on_read(len(block))
    return digest.hexdigest()


def package_problem(code: Path, package: CodePackage, on_read: OnRead, *, packed: bool) -> str:
    """Return how the files of a package differ from the package as received; an empty text if they do not.

    If the package is ``packed``, only its ``packed_files`` are checked.
    """
    original, folder = code / f"{package.sha256}.package", code / package.sha256
    try:
        if digest_of(original, "sha512", on_read) != package.digest:
            return f"{original.name} is damaged: its SHA-512 differs from that in the catalog"
        if package.kind == "inline":
            if (path := inline_source(original, folder)) is None:
                return f"{folder.name}/ has no file with the source"
            same = path.read_bytes() == original.read_bytes()
            return "" if same else f"{path.relative_to(code)} differs from the source received"
        if packed:
            return ""
        with original.open("rb") as file:
            for path, size, checksum in unpacking.contents(file):
                compiled = "__pycache__" in path.parts  # removed before the first use
                if not compiled and not unpacking.has_sum(folder / path, size, checksum):
                    return f"{folder.name}/{path} differs from the file in the package"
        return ""
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(code)} is missing"
    except (OSError, InvalidField) as error:
        return f"cannot be read: {error}"


def inline_source(original: Path, folder: Path) -> Path | None:
    """Return the file of inline source, whose path is part of the hash in its name; None if it is missing."""
    source = original.read_bytes()
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            content = b"inline\0" + str(path.relative_to(folder)).encode() + b"\0" + source
            if hashlib.sha256(content).hexdigest() == folder.name and path.is_file():
                return path
    return None


class PackageChecks:
    """Checks of the packages in a folder before their first use, so that changed bytes are never loaded silently.

    Each package is checked once, because nothing but the disk changes it. A package as it was received is checked by
    the hash in its name, and each unpacked file by the package. A file that differs is unpacked again. Files that the
    package does not have are not checked. Compiled code in ``__pycache__`` is removed, because nothing tells that it
    changed.
    """

    def __init__(self, folder: Path, limits: unpacking.Limits) -> None:
        self._folder, self._limits = folder, limits
        self._threads = anyio.CapacityLimiter(_CHECKS)
        self._running: dict[str, anyio.Lock] = {}
        self._sound: set[str] = set()
        self.damaged: set[str] = set()  #: names of packages that cannot be used until they are uploaded again

    async def check(self, package: CodePackage) -> None:
        """Check a package unless that was done. Raise OSError if it is damaged, or if its files cannot be read."""
        name = package.sha256
        if name in self._sound:
            return
        async with self._running.setdefault(name, anyio.Lock()):
            if name in self._sound:
                return
            work = partial(self._check, name, inline=package.kind == "inline")
            await anyio.to_thread.run_sync(work, limiter=self._threads)
            self._sound.add(name)
            self.damaged.discard(name)
        self._running.pop(name, None)

    def _check(self, name: str, *, inline: bool) -> None:
        package, folder = self._folder / f"{name}.package", self._folder / name
        for cache in [*folder.rglob("__pycache__")]:
            shutil.rmtree(cache, ignore_errors=True)
        try:
            changed = _mend_inline(package, folder) if inline else self._mend(package, folder, name)
        except InvalidField:
            changed = None
        if changed is None:
            self.damaged.add(name)
            log.error("code package damaged", package=name, advice="upload the code of its functions again")
            raise OSError(errno.EIO, "the code package is damaged on disk", str(package))
        if changed:
            log.warning(
                "changed files of a code package restored", package=name, files=[str(path) for path in changed[:5]]
            )

    def _mend(self, package: Path, folder: Path, name: str) -> list[Path] | None:
        """Restore changed files of a zip. Return their paths, or None if the zip is damaged."""
        if digest_of(package, "sha256") != name:
            return None
        with package.open("rb") as file:
            return unpacking.unpack_changed(file, folder, self._limits)


def _mend_inline(package: Path, folder: Path) -> list[Path] | None:
    """Restore the file of inline source. Return its path if it was changed, or None if the source is damaged."""
    source, target = package.read_bytes(), inline_source(package, folder)
    if target is None or target.read_bytes() == source:
        return None if target is None else []
    unpacking.replace_file(target, [source], target.stat().st_mode & 0o777)
    return [target.relative_to(folder)]
