"""Parser and writer of HTTP/1.1 messages. Standard library only, Python 3.9 syntax.

A message is parsed piece by piece as data arrives, and written as a whole.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from worker_types import Headers

HEAD_LIMIT = 1 << 16
REQUEST_HEAD_LIMIT = HEAD_LIMIT + (1 << 20)  # AWS's client in Go sends the cause of an error in a header
NO_BODY = frozenset((204, 304))
REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Payload Too Large",
}


class BadMessage(Exception):
    """Data that is not HTTP, or not in a form that this module supports."""


class Message:
    """HTTP request or response.

    ``start`` has the three parts of the first line; ``headers`` are (name, value) pairs and include the trailers.
    """

    def __init__(self, start: "list[str]", headers: "Headers") -> None:
        self.start, self.headers = start, headers
        self.body = b""
        self.size = 0  #: bytes of the body; larger than ``body`` if it exceeded the limit
        self.lasting = True  #: the connection can carry another message

    def get(self, name: str) -> str:
        """Return the value of the first header with this name (lower-case), or an empty string."""
        return next((value for field, value in self.headers if field.lower() == name), "")

    @property
    def status(self) -> int:
        return int(self.start[1])


class Reader:
    """Parser of HTTP messages. Bytes of a body beyond ``limit`` are counted, but not stored."""

    def __init__(self, limit: int, response: bool = False) -> None:
        self.limit, self.response = limit, response
        self.longest = HEAD_LIMIT if response else REQUEST_HEAD_LIMIT  #: bytes of a head or line
        self.buffer = bytearray()
        self.ended = False  #: the peer has closed its side
        self.head: Message | None = None  #: the message being read, without its body
        self.body = bytearray()  #: of this message
        self.bodiless = False  #: the next response answers HEAD and has no body, whatever its headers state
        self.steps = self.messages()

    def feed(self, data: bytes) -> "Message | None":
        """Add data. Return the message that the data completes, or None. Raises BadMessage if the data is not HTTP."""
        self.buffer += data
        return next(self.steps)

    def end(self) -> "Message | None":
        """Handle the end of the connection. Return a response that the end completes, or None."""
        self.ended = True
        try:
            return next(self.steps)
        except BadMessage:
            return None

    def messages(self) -> "Generator[Message | None, None, None]":
        while True:
            message = yield from self.read_head()
            self.head, self.body = message, bytearray()
            coding = message.get("transfer-encoding").lower()
            if self.response and (self.bodiless or message.status in NO_BODY or message.status < 200):
                pass
            elif coding.endswith("chunked"):
                yield from self.read_chunks(message)
            elif message.get("content-length"):
                yield from self.read_span(message, number(message.get("content-length"), 10))
            elif self.response:
                message.lasting = False
                yield from self.read_rest(message)
            message.body = bytes(self.body)
            message.lasting = message.lasting and persists(message, self.response)
            self.head = None
            yield message

    def read_head(self) -> "Generator[None, None, Message]":
        while True:
            end, gap = self.buffer.find(b"\r\n\r\n"), 4
            if end < 0:
                end, gap = self.buffer.find(b"\n\n"), 2
            if end >= 0:
                break
            if len(self.buffer) > self.longest:
                raise BadMessage(f"the head is larger than {self.longest} bytes")
            yield None
        lines = self.buffer[:end].decode("latin-1").replace("\r\n", "\n").lstrip("\n").split("\n")
        del self.buffer[: end + gap]
        start = lines[0].split(" ", 2)
        if len(start) < 2 or (self.response and not start[1].isdigit()):
            raise BadMessage(f"'{lines[0][:80]}' does not start an HTTP message")
        return Message(start, [pair(line) for line in lines[1:]])

    def read_rest(self, message: Message) -> "Generator[None, None, None]":
        while not self.ended:
            self.keep(message, len(self.buffer))
            yield None
        self.keep(message, len(self.buffer))

    def read_chunks(self, message: Message) -> "Generator[None, None, None]":
        while True:
            size = number((yield from self.line()).partition(";")[0], 16)
            if size == 0:
                break
            yield from self.read_span(message, size)
            yield from self.line()
        while True:
            trailer = yield from self.line()
            if not trailer:
                break
            message.headers.append(pair(trailer))

    def read_span(self, message: Message, size: int) -> "Generator[None, None, None]":
        while size:
            part = min(size, len(self.buffer))
            self.keep(message, part)
            size -= part
            if size:
                yield None

    def keep(self, message: Message, part: int) -> None:
        message.size += part
        if message.size <= self.limit:
            self.body += self.buffer[:part]
        del self.buffer[:part]

    def line(self) -> "Generator[None, None, str]":
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                line = self.buffer[:end].decode("latin-1").rstrip("\r")
                del self.buffer[: end + 1]
                return line
            if len(self.buffer) > self.longest:
                raise BadMessage(f"a line is larger than {self.longest} bytes")
            yield None


def number(text: str, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if value < 0:
        raise BadMessage(f"'{text[:40]}' is not a length")
    return value


def pair(line: str) -> "tuple[str, str]":
    name, colon, value = line.partition(":")
    if not colon:
        raise BadMessage(f"'{line[:80]}' is not a header")
    # Only these: other white space of Unicode is part of the value, such as the last byte of "à" in UTF-8.
    return name.strip(" \t"), value.strip(" \t")


def persists(message: Message, response: bool) -> bool:
    connection = message.get("connection").lower()
    version = message.start[0] if response else message.start[-1]
    return connection == "keep-alive" if version == "HTTP/1.0" else "close" not in connection


def write_message(start: str, headers: "Headers", body: bytes, coding: str = "utf-8") -> bytes:
    """Return the bytes of an HTTP message, with a Content-Length header added.

    ``coding`` converts first line and headers to bytes.
    """
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}\r\n\r\n"]
    return "\r\n".join(lines).encode(coding, "replace") + body


def write_answer(status: int, headers: "Headers", body: bytes) -> bytes:
    return write_message(f"HTTP/1.1 {status} {REASONS[status]}", headers, body)
