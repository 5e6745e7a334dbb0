"""Code packages on disk: unpacked once, whole or not at all, and never changed after that.

    code/<sha256>/          what an instance runs from
    code/<sha256>.package   the bytes as they came, to be shown again
    code/.new-*             a package on its way in, or what a crash left of one
    code/.journal           mark of the packages: the name of the journal that knows them

Code comes with the call (inline or zip), or from an object store that a link leads into (obs). A folder appears by
rename only after all its files are on disk, so whoever sees it may use it. The name of a zip package is the hash of
its bytes; inline source is hashed together with the name of the file it becomes. Nothing is removed while the engine
runs (an instance may still run from it): ``sweep`` does that at the next start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.code.inline import inline_file, template
from engine.code.unpacking import Limits, check_free, fsync_file, fsync_folder, fsync_tree, unpack, write_file
from engine.errors import (
    BadLink,
    CodeMissing,
    CodePackageTooLarge,
    DataDirectoryUnusable,
    InlineCodeTooLarge,
    InvalidField,
    NotStored,
)
from engine.isolation.orphans import remove_tree
from engine.model import CodePackage
from engine.protocols import CodeLinks

INLINE_LIMIT = 10 * 1024
PACKAGE_LIMIT = 50 << 20  #: of a package that comes with a call, and of what a reply can hold
LINKED_LIMIT = 300 << 20  #: of one that a link leads to (spec functiongraph_api, section 9)
NO_CODE = CodePackage(sha256="", digest="", size=0)  #: of a function whose code is not stored yet

_MARK = ".journal"
_PACKAGE = re.compile(r"[0-9a-f]{64}(\.package)?")
_FETCHES = 4  #: at a time
_SPACE = bytes(range(9, 14)) + b" "
_STEP = 1 << 20  #: characters, or bytes
T = TypeVar("T")
Admit = Callable[[CodePackage], None]


class CodeSource(Struct, frozen=True, kw_only=True):
    """Code as an API call names it."""

    kind: str  #: ``inline``, ``zip`` or ``obs``
    file: str = ""  #: base64 of the source text or of the package
    filename: str = ""
    url: str = ""  #: of kind ``obs``: the link to the package


class CodeStore:
    def __init__(self, folder: Path, limits: Limits | None = None, links: CodeLinks | None = None) -> None:
        self._folder, self._links = folder, links
        self._journal = ""
        self._limits = limits or Limits()
        # One package at a time: each may hold 50 MB in memory and write thirty times that.
        self._turn = anyio.CapacityLimiter(1)
        self._fetches = anyio.CapacityLimiter(_FETCHES)

    async def add(
        self, source: CodeSource, *, handler: str, runtime: str = "", admit: Admit = lambda package: None
    ) -> CodePackage:
        """Inline source becomes the file that ``handler`` names, in the language of ``runtime``.

        ``admit`` sees the package before it is kept, and may refuse it by what it raises. Once this returns, the
        package is unpacked and on disk. Raises InvalidField, PayloadTooLarge, DiskLow, NotStored, and what links raise.
        """
        place = inline_file(handler, runtime, source.filename) if source.kind == "inline" else None
        async with self._new_folder() as new:
            package = new / "package"
            await self._receive(source, package, lambda: template(handler, runtime))
            found = await self._in_thread(lambda: _describe(package, source, place[0] if place else ""))
            admit(found)
            await self._in_thread(lambda: self._keep(found.sha256, new, place))
        return found

    def folder(self, package: CodePackage) -> Path:
        """Where the package lies unpacked."""
        return self._folder / package.sha256

    async def original(self, package: CodePackage) -> bytes:
        """The source text or zip file as it came. Raises CodePackageTooLarge for one that no reply can hold."""
        if package.size > PACKAGE_LIMIT:
            raise CodePackageTooLarge(PACKAGE_LIMIT)
        return await anyio.Path(self._original(package.sha256)).read_bytes()

    async def md5(self, package: CodePackage) -> str:
        """Of its bytes, in hexadecimal digits; some documented fields hold that."""
        return await self._in_thread(lambda: _md5(self._original(package.sha256)))

    async def mark(self) -> str | None:
        """Return the mark of the packages; empty for packages without one, None without packages.

        Raises DataDirectoryUnusable.
        """
        try:
            return await anyio.to_thread.run_sync(lambda: self._mark() if self._holds_packages() else None)
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); give the engine access to it"
            raise DataDirectoryUnusable(str(self._folder), problem) from error

    def belong_to(self, journal: str) -> None:
        """Mark packages with the name of their journal from now on: at the sweep, and before a new one is kept."""
        self._journal = journal

    async def sweep(self, referenced: Collection[str]) -> int:
        """Remove packages that no function refers to, and torn uploads. At start only; gives how many went."""
        return await self._in_thread(lambda: self._sweep(frozenset(referenced)))

    # --- on the way in --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _new_folder(self) -> AsyncIterator[Path]:
        """Gone when the block is left, with what is still in it."""
        new = self._folder / f".new-{uuid.uuid4().hex}"
        try:
            await self._in_thread(lambda: new.mkdir(parents=True))
            self._check_free(new)
            yield new
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(new, ignore_errors=True))

    async def _receive(self, source: CodeSource, package: Path, left_out: Callable[[], bytes]) -> None:
        """``left_out`` gives the inline source of a call that has none."""
        if source.kind == "inline":
            await self._in_thread(lambda: package.write_bytes(decoded(source.file, INLINE_LIMIT) or left_out()))
        elif source.kind == "zip":
            await self._in_thread(lambda: package.write_bytes(_given(source)))
        elif source.kind == "obs":
            await self._fetch(source.url, package)
        else:
            raise InvalidField("code_type", source.kind, "this engine takes inline, zip and obs")

    async def _fetch(self, link: str, package: Path) -> None:
        if self._links is None:
            hint = "no object store is configured: set plugins.obs.endpoint or plugins.obs.folder, or send a zip"
            raise InvalidField("code_type", "obs", hint)
        if not link:
            raise BadLink("", "code in an object store needs its link")
        size = 0
        try:
            async with self._fetches, self._links.open(link) as blocks, await anyio.open_file(package, "xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > LINKED_LIMIT:
                        raise CodePackageTooLarge(LINKED_LIMIT)
                    self._check_free(package.parent)
                    await file.write(block)
        except OSError as error:
            raise _not_stored(error) from error

    def _keep(self, name: str, new: Path, place: tuple[str, int] | None) -> None:
        """``place`` is the file that inline source becomes, and its mode."""
        if (self._folder / name).is_dir():
            return
        code, package = new / "code", new / "package"
        code.mkdir()
        code.chmod(0o755)
        if place:
            write_file(code / place[0], [package.read_bytes()], place[1])
        else:
            with package.open("rb") as opened:
                unpack(opened, code, self._limits)
        fsync_tree(code)
        fsync_file(package)
        self._set_mark()
        # The folder comes last: that it exists says that the package does, too.
        package.rename(self._original(name))
        code.rename(self._folder / name)
        fsync_folder(self._folder)

    # --- inside ---------------------------------------------------------------------------------------------

    def _check_free(self, folder: Path) -> None:
        check_free(folder, self._limits.keep_free)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._turn)
        except OSError as error:
            raise _not_stored(error) from error

    def _original(self, name: str) -> Path:
        return self._folder / f"{name}.package"

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
            fsync_folder(self._folder)

    def _sweep(self, referenced: frozenset[str]) -> int:
        removed, kept = 0, False
        for entry in list(self._folder.iterdir()) if self._folder.is_dir() else []:
            if entry.name.removesuffix(".package") in referenced:
                kept = True
                continue
            if entry.name == _MARK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)  # functions may have written there
                if entry.exists():
                    shutil.rmtree(entry)  # it says what hinders
                removed += 1
            else:
                entry.unlink()
        if kept:
            self._set_mark()
        else:
            (self._folder / _MARK).unlink(missing_ok=True)
        return removed


def decoded(text: str, limit: int) -> bytes:
    """Base64, with or without line breaks, decoded in steps: one long step would hold up the event loop's thread."""
    content, rest = bytearray(), b""
    try:
        for start in range(0, len(text), _STEP):
            packed = rest + text[start : start + _STEP].encode("ascii").translate(None, _SPACE)
            whole = len(packed) - len(packed) % 4
            if packed and content and len(content) % 3:
                raise binascii.Error("there is more after the padding")
            content += base64.b64decode(packed[:whole], validate=True)
            rest = packed[whole:]
            if len(content) > limit:
                raise InlineCodeTooLarge(limit) if limit == INLINE_LIMIT else CodePackageTooLarge(limit)
        content += base64.b64decode(rest, validate=True)
    except ValueError as error:
        raise InvalidField("func_code", text, f"func_code.file must be base64 ({error})") from None
    return bytes(content)


def _given(source: CodeSource) -> bytes:
    content = decoded(source.file, PACKAGE_LIMIT)
    if not content:
        raise CodeMissing("zip")
    return content


def _describe(file: Path, source: CodeSource, place: str) -> CodePackage:
    """``place`` is the file that inline source becomes."""
    name, digest = hashlib.sha256(b"inline\0" + place.encode() + b"\0" if place else b""), hashlib.sha512()
    for block in _blocks(file):
        name.update(block)
        digest.update(block)
    return CodePackage(
        sha256=name.hexdigest(),
        digest=digest.hexdigest(),
        size=file.stat().st_size,
        kind=source.kind,
        filename=PurePosixPath(place).name or source.filename or PurePosixPath(unquote(urlsplit(source.url).path)).name,
        url=source.url,
    )


def _md5(file: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    for block in _blocks(file):
        found.update(block)
    return found.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while block := opened.read(_STEP):
            yield block


def _not_stored(error: OSError) -> NotStored:
    return NotStored(f"the code package: {error.strerror or error}")
