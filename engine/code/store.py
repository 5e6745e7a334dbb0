"""Store of code packages on disk. Packages are unpacked when stored, and do not change afterwards.

    code/<sha256>/          unpacked code, from which instances run
    code/<sha256>.package   the package as received, for download
    code/.new-*             a package being received, or an incomplete one after a crash
    code/.journal           name of the journal whose functions and dependencies refer to the packages

Code is part of the API request (kinds ``inline`` and ``zip``), or is fetched from an object store by a link (``obs``).
A folder is renamed to its final name after all its files are on disk, so an existing folder is complete. A zip package
is named by the hash of its bytes; inline source is hashed together with the name of its file. Packages are not removed
while the engine runs, because an instance may still use them. ``sweep`` removes unreferenced packages at the next
start.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.code.default_code import check_inline, default_code, inline_file
from engine.code.package_files import PackageChecks
from engine.code.receiving import Base64Decoder, ReceivedCode, Upload, not_stored
from engine.code.unpacking import Limits, check_free, fsync_tree, unpack, write_file
from engine.code.work_turns import WorkTurns
from engine.errors import (
    BadLink,
    CodeMissing,
    CodePackageTooLarge,
    InlineCodeTooLarge,
    InvalidField,
)
from engine.errors.files import file_errors
from engine.isolation.machine import fsync_path
from engine.isolation.orphans import remove_tree
from engine.model import CodePackage
from engine.protocols import CodeLinks

INLINE_LIMIT = 10 * 1024
PACKAGE_LIMIT = 50 << 20  #: bytes of a package in a request or reply
LINKED_LIMIT = 300 << 20  #: bytes of a package fetched by a link (FunctionGraph's limit)
NO_CODE = CodePackage(sha256="", digest="", size=0)  #: placeholder until a function's code is stored

_MARK = ".journal"
_PACKAGE = re.compile(r"[0-9a-f]{64}(\.package)?")
_FETCHES = 4  #: concurrent downloads by link
_RECEIVING = 2  #: threads that decode code while it arrives
_STEP = 1 << 20  #: characters, or bytes
T = TypeVar("T")
Admit = Callable[[CodePackage], None]
CheckLink = Callable[[str, str], None]  #: raises if a project (the second argument) may not read the package of a link


class CodeSource(Struct, frozen=True, kw_only=True):
    """Code in an API request."""

    kind: str  #: ``inline``, ``zip`` or ``obs``
    file: str = ""  #: base64 of the source text or package
    received: ReceivedCode | None = None  #: the same, if it is already on disk
    filename: str = ""
    url: str = ""  #: link to the package, for kind ``obs``


class CodeStore:
    def __init__(
        self, folder: Path, limits: Limits | None = None, links: CodeLinks | None = None, check: CheckLink | None = None
    ) -> None:
        self._folder, self._links, self._check_link = folder, links, check
        self._journal = ""
        self._limits = limits or Limits()
        self._checks = PackageChecks(folder, self._limits)
        self.check = self._checks.check
        # Packages are processed one at a time, and of a project one after the other: each may write 1500 MiB.
        self._turns = WorkTurns()
        self._projects = WeakValueDictionary[str, anyio.Lock]()
        self._fetches = anyio.CapacityLimiter(_FETCHES)
        self._receiving = anyio.CapacityLimiter(_RECEIVING)

    @asynccontextmanager
    async def receiving(self, field: str, limit: int = PACKAGE_LIMIT) -> AsyncIterator[Upload]:
        """Yield the reader of a request body with code in the field ``field``, of at most ``limit`` bytes.

        Code that ``add`` has not taken is removed when the block ends.
        """
        free = self._limits.keep_free
        upload = Upload(self._folder, self._receiving, keep_free=free, field=field, limit=limit)
        try:
            yield upload
        finally:
            await upload.close()

    async def add(
        self, source: CodeSource, project: str = "", *, handler: str, runtime: str = "", admit: Admit = lambda _: None
    ) -> CodePackage:
        """Store the code of an API request of a project. On return the package is unpacked and on disk.

        Inline source is stored as the file that ``handler`` names, in the language of ``runtime``. If the request has
        no code, the default code of the runtime is stored. ``admit`` is called with the package before it is stored,
        and may raise to reject it. Raises InvalidField if the kind, base64 text, handler or zip is invalid, or links
        are not supported; CodeMissing if the code is empty, or left out without a ``handler``; PayloadTooLarge if the
        package exceeds a limit; DiskLow if the disk is nearly full; NotStored if a write fails. Raises the errors of
        ``CodeLinks`` if the link is invalid or its object cannot be fetched.
        """
        target = inline_file(handler, runtime, source.filename) if source.kind == "inline" else None
        path = target[0] if target else ""
        async with self._new_folder() as new:
            package = new / "package"
            if source.kind == "obs":
                await self._fetch(source.url, project, package)
            async with self._projects.setdefault(project, anyio.Lock()):
                await self._receive(source, package, lambda: _left_out(source, handler, runtime, path))
                if target:
                    await self._in_thread(lambda: check_inline(package.read_bytes(), runtime))
                code = await self._in_thread(lambda: _describe(package, source, path))
                admit(code)
                await self._in_thread(lambda: self._keep(code.sha256, new, target))
        return code

    def folder(self, package: CodePackage) -> Path:
        """Return the path of the folder with the unpacked package."""
        return self._folder / package.sha256

    async def original(self, package: CodePackage) -> bytes:
        """Return the source text or zip file as it was received.

        Raises CodePackageTooLarge if it has more than ``PACKAGE_LIMIT`` bytes.
        """
        return await anyio.Path(self.file(package)).read_bytes()

    def file(self, package: CodePackage) -> Path:
        """Return the path of the source text or zip file as it was received.

        Raises CodePackageTooLarge if it has more than ``PACKAGE_LIMIT`` bytes.
        """
        if package.size > PACKAGE_LIMIT:
            raise CodePackageTooLarge(PACKAGE_LIMIT)
        return self.received(package)

    def received(self, package: CodePackage) -> Path:
        """Return the path of the source text or zip file as it was received, however large it is."""
        return self._folder / f"{package.sha256}.package"

    async def temporary_file(self) -> IO[bytes]:
        """Return a new file on the disk of the packages, which vanishes when it is closed."""
        return await self._in_thread(lambda: tempfile.TemporaryFile(dir=self._folder))

    async def md5(self, package: CodePackage) -> str:
        """Return the MD5 of the package in hexadecimal digits, as some fields of the API require."""
        return await self._in_thread(lambda: _md5(self.received(package)))

    async def mark(self) -> str | None:
        """Return the journal's name that is stored beside the packages in ``.journal``.

        An empty text means that the file is missing, None that there are no packages. Raises DataDirectoryUnusable if
        the folder cannot be read.
        """
        with file_errors(self._folder):
            return await anyio.to_thread.run_sync(lambda: self._mark() if self._holds_packages() else None)

    def belong_to(self, journal: str) -> None:
        """Set the name of the journal that refers to the packages. ``sweep`` and ``add`` write it to ``.journal``."""
        self._journal = journal

    async def sweep(self, referenced: Collection[str]) -> int:
        """Remove packages that are not in ``referenced``, and incomplete ones. Return the number removed.

        Call at the start only, because running instances may use any package. Raises DataDirectoryUnusable if the
        folder cannot be changed.
        """
        with file_errors(self._folder):
            return await self._turns.run(lambda: self._sweep(frozenset(referenced)))

    # --- receiving ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _new_folder(self) -> AsyncIterator[Path]:
        """Yield a new temporary folder, and remove it with its contents when the block ends."""
        new = self._folder / f".new-{uuid.uuid4().hex}"
        try:
            await self._in_thread(lambda: new.mkdir(parents=True))
            check_free(new, self._limits.keep_free)
            yield new
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(new, ignore_errors=True))

    async def _receive(self, source: CodeSource, package: Path, left_out: Callable[[], bytes]) -> None:
        """Write the code of a request to the file ``package``, unless it was fetched.

        Calls ``left_out`` for default code if there is none.
        """
        received, limit = source.received, INLINE_LIMIT if source.kind == "inline" else PACKAGE_LIMIT
        if received is not None and (received.size or received.problem) and source.kind in ("inline", "zip"):
            check_received(received, limit)
            await self._in_thread(lambda: received.file.rename(package))
        elif source.kind in ("inline", "zip"):
            await self._in_thread(lambda: package.write_bytes(decoded(source.file, limit) or left_out()))
        elif source.kind != "obs":
            raise InvalidField("code_type", source.kind, "must be inline, zip or obs")

    async def _fetch(self, link: str, project: str, package: Path) -> None:
        if self._links is None:
            hint = "no object store is configured: set plugins.obs.endpoint or plugins.obs.folder, or send a zip"
            raise InvalidField("code_type", "obs", hint)
        if not link:
            raise BadLink("", "code in an object store needs a link to the package")
        if self._check_link is not None:
            self._check_link(link, project)
        size = 0
        try:
            async with self._fetches, self._links.open(link) as blocks, await anyio.open_file(package, "xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > LINKED_LIMIT:
                        raise CodePackageTooLarge(LINKED_LIMIT)
                    check_free(package.parent, self._limits.keep_free)
                    await file.write(block)
        except OSError as error:
            raise not_stored(error) from error

    def _keep(self, name: str, new: Path, target: tuple[str, int] | None) -> None:
        """Unpack the package in the folder ``new``, and rename the folder to ``name``.

        ``target`` is path and mode of inline source, or None for a zip. If the package is stored already, nothing is
        changed, but all names are synced to disk, because an earlier call may have failed to do that.
        """
        if name in self._checks.damaged:
            remove_tree(self._folder / name)
        if not (self._folder / name).is_dir():
            self._unpack(name, new, target)
        fsync_path(self._folder)
        fsync_path(self._folder.parent)  # ``code`` itself may be new

    def _unpack(self, name: str, new: Path, target: tuple[str, int] | None) -> None:
        code, package = new / "code", new / "package"
        code.mkdir()
        code.chmod(0o755)
        if target:
            write_file(code / target[0], [package.read_bytes()], target[1])
        else:
            with package.open("rb") as opened:
                unpack(opened, code, self._limits, self._turns.give_way)
        fsync_tree(code, self._turns.give_way)
        fsync_path(package)
        self._set_mark()
        # The folder is renamed last, so that an existing folder implies an existing package.
        if not (self._folder / name).is_dir():  # another project may have stored it meanwhile
            package.rename(self._folder / f"{name}.package")
            code.rename(self._folder / name)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self._turns.run(work)
        except OSError as error:
            raise not_stored(error) from error

    def _holds_packages(self) -> bool:
        return self._folder.is_dir() and any(_PACKAGE.fullmatch(name) for name in os.listdir(self._folder))

    def _mark(self) -> str:
        try:
            return (self._folder / _MARK).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _set_mark(self) -> None:
        if self._journal and self._mark() != self._journal:
            new = self._folder / f".new-{uuid.uuid4().hex}"
            write_file(new, [self._journal.encode()], 0o600)
            new.rename(self._folder / _MARK)
            fsync_path(self._folder)

    def _sweep(self, referenced: frozenset[str]) -> int:
        removed, kept = 0, False
        for entry in list(self._folder.iterdir()) if self._folder.is_dir() else []:
            if entry.name.removesuffix(".package") in referenced:
                kept = True
                continue
            if entry.name == _MARK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)  # functions may have written to the folder
                if entry.exists():
                    shutil.rmtree(entry)  # called for its error, which names the cause
                removed += 1
            else:
                entry.unlink()
        if kept:
            self._set_mark()
        else:
            (self._folder / _MARK).unlink(missing_ok=True)
        return removed


def decoded(text: str, limit: int) -> bytes:
    """Decode base64 text, with or without line breaks, to at most ``limit`` bytes.

    Decodes in steps, because a single long step would hold the GIL and so block the event loop. Raises InvalidField if
    the text is not base64; InlineCodeTooLarge or CodePackageTooLarge if the code exceeds ``limit``, which is that of
    inline source or of packages.
    """
    content, decoder = bytearray(), Base64Decoder()
    try:
        for start in range(0, len(text), _STEP):
            content += decoder.decode(text[start : start + _STEP].encode("ascii"))
            _check_size(decoder.size, limit)
        content += decoder.end()
    except ValueError as error:
        raise _not_base64(text, str(error)) from None
    return bytes(content)


def _left_out(source: CodeSource, handler: str, runtime: str, path: str) -> bytes:
    """Return default code; ``path`` is the file of inline source, empty for a zip.

    Raises CodeMissing if the request names code, although that is empty or not of its kind.
    """
    if source.file or source.received is not None or source.url:
        raise CodeMissing(source.kind)
    return default_code(source.kind, handler, runtime, path)


def check_received(received: ReceivedCode, limit: int) -> None:
    """Raise the errors of ``decoded`` for code that was decoded while it arrived."""
    if received.problem:
        raise _not_base64(received.start, received.problem)
    _check_size(received.size, limit)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise InlineCodeTooLarge(limit) if limit == INLINE_LIMIT else CodePackageTooLarge(limit)


def _not_base64(text: str, problem: str) -> InvalidField:
    return InvalidField("func_code", text, f"func_code.file must be base64 ({problem})")


def _describe(file: Path, source: CodeSource, target: str) -> CodePackage:
    """Return the description of a received package; ``target`` is the path of inline source, empty for a zip."""
    name, digest = hashlib.sha256(b"inline\0" + target.encode() + b"\0" if target else b""), hashlib.sha512()
    for block in _blocks(file):
        name.update(block)
        digest.update(block)
    return CodePackage(
        sha256=name.hexdigest(),
        digest=digest.hexdigest(),
        size=file.stat().st_size,
        kind=source.kind,
        filename=PurePosixPath(target).name
        or source.filename
        or PurePosixPath(unquote(urlsplit(source.url).path)).name,
        url=source.url,
    )


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while block := opened.read(_STEP):
            yield block
