"""Forms with a file (``multipart/form-data``). The fields are read at once, the file piece by piece.

The file must be the last field of its form: fields after it are not read.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from engine.asgi.wire import RELEASE, ClientDisconnect, Headers, Receive
from engine.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it raises all that it logs

Event = tuple[str, bytes]  #: name of a callback of the parser, and its data


class UploadedFile:
    """File of a form. ``pieces`` reads it once, while it arrives."""

    def __init__(self, filename: str, pieces: AsyncIterator[bytes]) -> None:
        self.filename, self.pieces = filename, pieces

    async def discard(self) -> None:
        """Read what is left of the file, so that the browser shows the reply and not a broken connection."""
        async for _ in self.pieces:
            pass


class MultipartReader:
    """Reader of one body of at most ``limit`` bytes, with at most ``most`` fields of ``size`` bytes together.

    Raises InvalidRequest if the body is not such a form; PayloadTooLarge beyond a limit; ClientDisconnect if the client
    closes the connection before its end.
    """

    def __init__(self, receive: Receive, headers: Headers, *, limit: int, most: int, size: int) -> None:
        boundary = parse_options_header(headers.get(b"content-type"))[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest("the form has no boundary between its fields")
        if int(headers.get(b"content-length", b"0")) > limit:
            raise PayloadTooLarge(limit)
        self._receive, self._limit, self._most, self._size = receive, limit, most, size
        self._events = deque[Event]()
        try:
            self._parser = MultipartParser(boundary, _callbacks(self._events))
        except FormParserError as error:
            raise _invalid(error) from None
        self._more, self._read = True, 0
        self._held = 0  # bytes that the listener counts as held in memory
        self._release: Callable[[int], None] | None = None

    async def read(self) -> tuple[list[tuple[str, str]], UploadedFile | None]:
        """Return names and values of the fields before the file, and the file; None if none was chosen."""
        pairs, size, count = list[tuple[str, str]](), 0, 0
        header, disposition, value = b"", b"", bytearray()
        options = dict[bytes, bytes]()
        while True:
            match await self._next():
                case "part_begin", _:
                    if (count := count + 1) > self._most:
                        raise InvalidRequest(f"the form has more than {self._most} fields")
                    disposition, value = b"", bytearray()
                case "header_begin", _:
                    header = b""
                case "header_field", data:
                    header += data
                case "header_value", data if header.lower() == b"content-disposition":
                    disposition += data
                case "headers_finished", _:
                    options = parse_options_header(disposition)[1]
                    if b"name" not in options:
                        raise InvalidRequest("a field of the form has no name")
                    if filename := options.get(b"filename"):
                        return pairs, UploadedFile(_name(filename), self._pieces())
                case "part_data", data:
                    if (size := size + len(data)) > self._size:
                        raise PayloadTooLarge(self._size)
                    value += data
                case "part_end", _ if b"filename" not in options:
                    pairs.append((_name(options[b"name"]), _text(value)))
                case "end", _:
                    return pairs, None

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield the data of the current part."""
        while (event := await self._next(streamed=True))[0] != "part_end":
            yield event[1]

    async def _next(self, *, streamed: bool = False) -> Event:
        """Return the next event. If events are ``streamed``, the listener need not count earlier bytes as held."""
        while not self._events:
            if streamed and self._release is not None:
                self._release(self._held)  # all of them: the listener reads nothing while it counts some
                self._held = 0
            await self._read_more()
        return self._events.popleft()

    async def _read_more(self) -> None:
        if not self._more:
            raise InvalidRequest("the form ends within a field")
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, self._release = message.get("body", b""), message.get(RELEASE)
        self._more = message.get("more_body", False)
        self._held += len(piece)
        self._read += len(piece)
        if self._read > self._limit:
            raise PayloadTooLarge(self._limit)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _invalid(error) from None


def _callbacks(events: deque[Event]) -> MultipartCallbacks:
    """Return callbacks that add what the parser finds to ``events``."""

    def note(name: str) -> Callable[[], None]:
        return lambda: events.append((name, b""))

    def take(name: str) -> Callable[[bytes, int, int], None]:
        return lambda data, start, end: events.append((name, data[start:end]))

    return {
        "on_part_begin": note("part_begin"),
        "on_header_begin": note("header_begin"),
        "on_header_field": take("header_field"),
        "on_header_value": take("header_value"),
        "on_headers_finished": note("headers_finished"),
        "on_part_data": take("part_data"),
        "on_part_end": note("part_end"),
        "on_end": note("end"),
    }


def _invalid(error: FormParserError) -> InvalidRequest:
    return InvalidRequest(f"the form is not valid multipart/form-data: {error}")


def _name(value: bytes) -> str:
    return value.decode("utf-8", "replace").replace("%22", '"')


def _text(value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
