"""Reception of request bodies with code: the code goes to disk while the body arrives.

A body is JSON, and one of its texts is code in base64. This text is cut out of the JSON and decoded to a file, piece by
piece. A random word takes its place. The rest of the JSON is small, and is decoded as that of any other request. Memory
and the time of each step are bounded, however long or broken the body is.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from engine.code.unpacking import check_free
from engine.errors import FieldsTooLarge, FunctiondError, NotJson, NotStored

SHORT = 32 << 10  #: bytes of a text that stays in the JSON
REST_LIMIT = 1 << 20  #: bytes of the JSON without the code
_IN_MEMORY = 8 << 10  #: bytes of this JSON that are kept in memory
_OVERLAP = 256  #: bytes of a key, the colon, and spaces between them that two pieces may share
_STEP = 64 << 10  #: bytes that are read at a time; several copies of them exist
_SHOWN = 100  #: characters of invalid code that an error shows
_LONGEST_ESCAPE = len(rb"\u0041")
_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  #: with its closing quote

T = TypeVar("T")


class ReceivedCode(Struct, frozen=True, kw_only=True):
    """Code in a file. ``problem`` says why it could not be decoded; empty: it is complete."""

    file: Path
    size: int  #: bytes; more than the limit if the code is too large. The file is then incomplete
    problem: str = ""
    start: str = ""  #: first characters of the text


class CodeCutter:
    """Reader of one body. Call ``feed`` for each piece, then ``end``. Both block the calling thread.

    The texts of all fields called ``field`` count as code if they are longer than ``SHORT`` bytes. Code of more than
    ``limit`` bytes is dropped. ``folder`` is for the code, and for temporary files.
    """

    def __init__(self, folder: Path, field: str, limit: int) -> None:
        self.word = uuid.uuid4().hex  #: stands for the code in ``rest``
        self.code: ReceivedCode | None = None  #: None until the code has ended
        self._key = re.compile(rb'[{,]\s*"%b"\s*:\s*"' % field.encode())
        self._folder, self._limit = folder, limit
        self._rest: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder))  # noqa: SIM115  (closed by ``close``)
        self._rest_size = 0
        self._held = b""  # bytes that are not read to their end yet
        self._in_text = False  # the next byte belongs to a text that may be code
        self._text: _CodeText | None = None  # a text that is code

    def feed(self, piece: bytes) -> None:
        """Read the next bytes of the body. Raises FieldsTooLarge if the JSON without the code is too large.

        Raises OSError if the disk refuses a write.
        """
        for start in range(0, len(piece), _STEP):
            data, self._held, at = self._held + piece[start : start + _STEP], b"", 0
            while at < len(data):
                at = self._read_text(data, at) if self._in_text else self._read_fields(data, at)

    def end(self) -> bytes:
        """Return the JSON without the code."""
        self._keep(self._held)
        self._rest.seek(0)
        return self._rest.read()

    def close(self) -> None:
        """Close all files. A disk that does not take the rest of them is no problem: they are not needed any more."""
        for file in (self._rest, self._text):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def _read_fields(self, data: bytes, at: int) -> int:
        """Read from index ``at`` until a text that may be code begins. Return its index."""
        match = self._key.search(data, at)
        self._in_text = match is not None
        end = match.end() if match is not None else max(at, len(data) - _OVERLAP)
        self._keep(data[at:end])
        if match is None:
            self._held, end = data[end:], len(data)
        return end

    def _read_text(self, data: bytes, at: int) -> int:
        """Read from index ``at`` until the text ends. Return the index of its closing quote."""
        if self._text is None:
            # Without a copy of the rest of the data, because a step may have thousands of short texts.
            match = _TEXT.match(data, at, at + SHORT + 1)
            if match is not None:
                self._keep(data[at : match.end() - 1])
                self._in_text = False
                return match.end() - 1
            if len(data) - at <= SHORT:
                self._held = data[at:]
                return len(data)
            if self.code is not None:
                raise FieldsTooLarge(REST_LIMIT)  # one text of code is more than any request needs
            self._keep(self.word.encode())
            self._text = _CodeText(self._folder / "package", self._limit)
        plain = data[at:].replace(rb"\\", b"__").replace(rb"\"", b"__")  # as long as before; quotes left are closing
        end = plain.find(b'"')
        if end < 0:
            end = at + _complete(plain)
            self._held = data[end:]
            self._text.write(data[at:end])
            return len(data)
        self._text.write(data[at : at + end])
        self.code, self._in_text, self._text = self._text.end(), False, None
        return at + end

    def _keep(self, text: bytes) -> None:
        self._rest_size += len(text)
        if self._rest_size > REST_LIMIT:
            raise FieldsTooLarge(REST_LIMIT)
        self._rest.write(text)


class _CodeText:
    """Text of code, which is decoded to a new file."""

    def __init__(self, file: Path, limit: int) -> None:
        self._path, self._limit = file, limit
        self._file = file.open("xb")
        self._decoder, self._problem, self._start = Base64Decoder(), "", ""

    def write(self, text: bytes) -> None:
        """Decode the next bytes, which end with a complete escape. Raises NotJson unless they belong to JSON."""
        try:
            plain: str = msgspec.json.decode(b'"%b"' % text, type=str)
        except msgspec.DecodeError as error:
            raise NotJson(str(error)) from None
        self._start = self._start or plain[:_SHOWN]
        if not self._problem and self._decoder.size <= self._limit:
            try:
                self._file.write(self._decoder.decode(plain.encode("ascii")))
            except ValueError as error:
                self._problem = str(error)

    def end(self) -> ReceivedCode:
        if not self._problem and self._decoder.size <= self._limit:
            try:
                self._file.write(self._decoder.end())
            except ValueError as error:
                self._problem = str(error)
        self._file.close()
        return ReceivedCode(file=self._path, size=self._decoder.size, problem=self._problem, start=self._start)

    def close(self) -> None:
        self._file.close()


def _complete(text: bytes) -> int:
    """Return how many bytes of ``text``, a text without escaped quotes and backslashes, do not end within an escape."""
    start = text.rfind(b"\\", -_LONGEST_ESCAPE)
    if start < 0 or (text[start + 1 : start + 2] not in (b"u", b"")):
        return len(text)
    return len(text) if len(text) - start >= _LONGEST_ESCAPE else start


_SPACE = bytes(range(9, 14)) + b" "


class Base64Decoder:
    """Decoder of one base64 text, with or without line breaks."""

    def __init__(self) -> None:
        self.size = 0  #: bytes decoded so far
        self._rest = b""

    def decode(self, text: bytes) -> bytes:
        """Return the bytes that the next piece of the text completes. Raises ValueError if it is not base64."""
        packed = self._rest + text.translate(None, _SPACE)
        whole = len(packed) - len(packed) % 4
        self._rest = packed[whole:]
        return self._decoded(packed[:whole])

    def end(self) -> bytes:
        """Return the bytes after the last complete group of four. Raises ValueError if the text is incomplete."""
        return self._decoded(self._rest)

    def _decoded(self, packed: bytes) -> bytes:
        if packed and self.size % 3:
            raise binascii.Error("data after the padding")
        content = base64.b64decode(packed, validate=True)
        self.size += len(content)
        return content


class Upload:
    """Request body with code in a field called ``field``, which has at most ``limit`` bytes when it is decoded.

    Nothing is on disk before the first ``feed``. ``threads`` limits the uploads that compute and write at a time;
    ``keep_free`` bytes must remain free on the disk of ``parent``.
    """

    def __init__(self, parent: Path, threads: anyio.CapacityLimiter, *, keep_free: int, field: str, limit: int) -> None:
        self._folder, self._threads, self._keep_free = parent / f".new-{uuid.uuid4().hex}", threads, keep_free
        self._field, self._limit = field, limit
        self._cutter: CodeCutter | None = None
        self._on_disk = False

    async def feed(self, piece: bytes) -> None:
        """Read the next bytes of the body.

        Raises FieldsTooLarge if the JSON without the code is too large; NotJson if the code is not a text of JSON;
        DiskLow if the disk is nearly full; NotStored if a write fails.
        """
        problem = await self._in_thread(lambda: self._feed(piece))
        if problem is not None:
            try:
                raise problem
            finally:
                del problem  # a reference cycle would keep the piece in memory

    async def end(self) -> bytes:
        """Return the JSON of the body, in which a word stands for the code."""
        cutter = self._cutter
        return b"" if cutter is None else await self._in_thread(cutter.end)

    def code(self, text: str) -> ReceivedCode | None:
        """Return the code for which ``text``, the value of the field, stands; None if ``text`` is the code itself."""
        cutter = self._cutter
        return cutter.code if cutter is not None and text == cutter.word else None

    async def new_folder(self) -> Path:
        """Return a new empty folder on the disk of the code. ``close`` removes it."""
        return await self._in_thread(self._make_folder)

    async def close(self) -> None:
        """Remove the code and the folders, unless they were moved elsewhere."""
        if self._on_disk:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove)

    def _feed(self, piece: bytes) -> FunctiondError | None:
        """Read the next bytes. Return an error, because one that is raised in a thread would keep them in memory."""
        try:
            if self._cutter is None:
                self._make()
                self._cutter = CodeCutter(self._folder, self._field, self._limit)
            check_free(self._folder, self._keep_free)
            self._cutter.feed(piece)
        except FunctiondError as error:
            return error.with_traceback(None)
        except OSError as error:
            return not_stored(error)
        return None

    def _make(self) -> None:
        if not self._on_disk:
            self._folder.mkdir(parents=True)
            self._on_disk = True

    def _make_folder(self) -> Path:
        self._make()
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        return folder

    def _remove(self) -> None:
        if self._cutter is not None:
            self._cutter.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as error:
            raise not_stored(error) from error


def not_stored(error: OSError) -> NotStored:
    """Return the error for a failed write of code."""
    return NotStored(f"the code package: {error.strerror or error}")
