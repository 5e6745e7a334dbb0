"""Forms with a file (``multipart/form-data``). The fields are read at once, the file piece by piece.

The file must be the last field of its form: fields after it are not read.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

from engine.asgi.wire import RELEASE, ClientDisconnect, Headers, Receive
from engine.errors import InvalidRequest, PayloadTooLarge

MULTIPART = b"multipart/form-data"
FIELDS = 2000  #: most fields of a form
_HEAD = 4 << 10  #: bytes of a field's head
_NAME, _FILE = re.compile(r'\bname="([^"]*)"'), re.compile(r'\bfilename="([^"]*)"')
_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?')


class UploadedFile:
    """File of a form. ``pieces`` reads it once, while it arrives."""

    def __init__(self, filename: str, pieces: AsyncIterator[bytes]) -> None:
        self.filename, self.pieces = filename, pieces

    async def discard(self) -> None:
        """Read what is left of the file, so that the browser shows the reply and not a broken connection."""
        async for _ in self.pieces:
            pass


class MultipartReader:
    """Reader of one body of at most ``limit`` bytes. Its fields have at most ``fields`` bytes together.

    Raises InvalidRequest if the body is not such a form; PayloadTooLarge beyond a limit; ClientDisconnect if the client
    closes the connection before its end.
    """

    def __init__(self, receive: Receive, headers: Headers, *, limit: int, fields: int) -> None:
        found = _BOUNDARY.search(headers.get(b"content-type", b""))
        if found is None:
            raise InvalidRequest("the form has no boundary between its fields")
        if int(headers.get(b"content-length", b"0")) > limit:
            raise PayloadTooLarge(limit)
        self._mark = b"\r\n--" + found[1]
        self._receive, self._left, self._fields = receive, limit, fields
        self._limit = limit
        self._data = b"\r\n"  # the first boundary may be the start of the body
        self._more, self._held = True, 0  # bytes that the listener counts as held in memory
        self._release: Callable[[int], None] | None = None

    async def read(self) -> tuple[list[tuple[str, str]], UploadedFile | None]:
        """Return names and values of the fields before the file, and the file; None if none was chosen."""
        pairs, read = list[tuple[str, str]](), 0
        await self._until(self._mark, self._fields)
        while await self._until(b"\r\n", _HEAD) != b"--":
            if (read := read + 1) > FIELDS:
                raise InvalidRequest(f"the form has more than {FIELDS} fields")
            head = (await self._until(b"\r\n\r\n", _HEAD)).decode("utf-8", "replace")
            name, file = _NAME.search(head), _FILE.search(head)
            if name is None:
                raise InvalidRequest("a field of the form has no name")
            if file is not None and file[1]:
                return pairs, UploadedFile(file[1].replace("%22", '"'), self._pieces())
            value = await self._until(self._mark, self._fields)
            self._fields -= len(value)
            if file is None:
                pairs.append((name[1], _text(value)))
        return pairs, None

    async def _until(self, mark: bytes, limit: int) -> bytes:
        """Return the bytes before the next ``mark``, and go on after it."""
        start = 0
        while (found := self._data.find(mark, start)) < 0:
            start = max(0, len(self._data) - len(mark))
            if len(self._data) > limit + len(mark):
                raise PayloadTooLarge(limit)
            if mark == b"\r\n" and self._data == b"--" and not self._more:
                return b"--"  # the last boundary may end the body
            await self._fill()
        taken, self._data = self._data[:found], self._data[found + len(mark) :]
        return taken

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes before the next boundary."""
        while (found := self._data.find(self._mark)) < 0:
            safe = max(0, len(self._data) - len(self._mark) + 1)
            piece, self._data = self._data[:safe], self._data[safe:]
            if piece:
                yield piece
            await self._fill(streamed=True)
        piece, self._data = self._data[:found], self._data[found + len(self._mark) :]
        if piece:
            yield piece

    async def _fill(self, *, streamed: bool = False) -> None:
        """Read the next bytes of the body. If they are ``streamed``, the listener need not count them as held."""
        if not self._more:
            raise InvalidRequest("the form ends within a field")
        if streamed and self._release is not None:
            self._release(self._held)  # all of them: the listener reads nothing while it counts some
            self._held = 0
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, self._release = message.get("body", b""), message.get(RELEASE)
        self._more = message.get("more_body", False)
        self._left -= len(piece)
        if self._left < 0:
            raise PayloadTooLarge(self._limit)
        self._held += len(piece)
        self._data += piece


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
