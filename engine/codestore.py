"""Code packages on disk: unpacked once, whole or not at all, and never changed after that.

    code/<sha256>/          what an instance runs from
    code/<sha256>.package   the bytes as they were uploaded, to be shown again
    code/.new-*             an upload in progress, or what a crash left of one

A folder appears by rename only after all its files are on disk, so whoever sees it may use it. The name of a zip
package is the hash of its bytes; inline source is hashed together with the name of the file it becomes. Nothing is
removed while the engine runs (an instance may still run from it): ``sweep`` does that at the next start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.errors import CodeMissing, CodePackageTooLarge, InlineCodeTooLarge, InvalidField, NotStored
from engine.inline_code import inline_file, template
from engine.model import CodePackage
from engine.unpacking import Limits, fsync_folder, fsync_tree, unpack, write_file

INLINE_LIMIT = 10 * 1024
PACKAGE_LIMIT = 50 << 20
NO_CODE = CodePackage(sha256="", digest="", size=0)  #: of a function whose code is not stored yet

_SPACE = bytes(range(9, 14)) + b" "
_STEP = 1 << 20  #: characters
T = TypeVar("T")


class CodeSource(Struct, frozen=True, kw_only=True):
    """Code as an API call carries it."""

    kind: str  #: ``inline`` or ``zip``
    file: str = ""  #: base64 of the source text or of the package
    filename: str = ""
    url: str = ""


class CodeStore:
    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        # One upload at a time: each may hold 50 MB in memory and write thirty times that.
        self._turn = anyio.CapacityLimiter(1)

    async def add(self, source: CodeSource, *, handler: str, runtime: str = "") -> CodePackage:
        """Inline source becomes the file that ``handler`` names, in the language of ``runtime``.

        Once this returns, the package is unpacked and on disk. Raises InvalidField, PayloadTooLarge, NotStored.
        """
        if source.kind == "inline":
            return await self._in_thread(lambda: self._add_inline(source, handler, runtime))
        if source.kind == "zip":
            return await self._in_thread(lambda: self._add_zip(source))
        raise InvalidField("code_type", source.kind, "this engine takes inline and zip")

    def folder(self, package: CodePackage) -> Path:
        """Where the package lies unpacked."""
        return self._folder / package.sha256

    async def original(self, package: CodePackage) -> bytes:
        """The source text or zip file as it was uploaded."""
        return await anyio.Path(self._original(package.sha256)).read_bytes()

    async def sweep(self, referenced: Collection[str]) -> int:
        """Remove packages that no function refers to, and torn uploads. At start only; gives how many went."""
        return await self._in_thread(lambda: self._sweep(frozenset(referenced)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._turn)
        except OSError as error:
            raise NotStored(f"the code package: {error.strerror or error}") from error

    def _add_inline(self, source: CodeSource, handler: str, runtime: str) -> CodePackage:
        filename, mode = inline_file(handler, runtime, source.filename)
        content = decoded(source.file, INLINE_LIMIT) or template(handler, runtime)
        name = hashlib.sha256(b"inline\0" + filename.encode() + b"\0" + content).hexdigest()
        self._store(name, content, lambda folder: write_file(folder / filename, [content], mode))
        return _package(name, content, "inline", Path(filename).name, source.url)

    def _add_zip(self, source: CodeSource) -> CodePackage:
        content = decoded(source.file, PACKAGE_LIMIT)
        if not content:
            raise CodeMissing("zip")
        name = hashlib.sha256(content).hexdigest()
        self._store(name, content, lambda folder: unpack(content, folder, self._limits))
        return _package(name, content, "zip", source.filename, source.url)

    def _store(self, name: str, content: bytes, fill: Callable[[Path], None]) -> None:
        if (self._folder / name).is_dir():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            (new / "code").mkdir()
            (new / "code").chmod(0o755)
            fill(new / "code")
            write_file(new / "package", [content], 0o644)
            fsync_tree(new / "code")
            # The folder comes last: that it exists says that the package does, too.
            (new / "package").rename(self._original(name))
            (new / "code").rename(self._folder / name)
            fsync_folder(self._folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _original(self, name: str) -> Path:
        return self._folder / f"{name}.package"

    def _sweep(self, referenced: frozenset[str]) -> int:
        removed = 0
        for entry in list(self._folder.iterdir()) if self._folder.is_dir() else []:
            if entry.name.removesuffix(".package") in referenced:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
                removed += 1
            else:
                entry.unlink()
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


def _package(name: str, content: bytes, kind: str, filename: str, url: str) -> CodePackage:
    digest = hashlib.sha512(content).hexdigest()
    return CodePackage(sha256=name, digest=digest, size=len(content), kind=kind, filename=filename, url=url)
