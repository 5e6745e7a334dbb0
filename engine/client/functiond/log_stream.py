"""Log lines in the replies of the engine: JSON lines, or server-sent events of a log that is followed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from functiond.records import LogLine


class Dropped(Struct):
    lines: int


class LogReader:
    """Reader of the pieces of a reply, in the order of their arrival."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = "line"

    def read(self, piece: bytes) -> Iterator[LogLine]:
        """Yield the log lines that ``piece`` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._read_line(line)

    def _read_line(self, line: bytes) -> Iterator[LogLine]:
        if line.startswith(b"{"):
            yield msgspec.json.decode(line, type=LogLine)
            return
        field, _, value = line.partition(b": ")
        if field == b"event":
            self._event = value.decode()
        elif field == b"data" and self._event == "line":
            yield msgspec.json.decode(value, type=LogLine)
        elif field == b"data" and self._event == "dropped":
            count = msgspec.json.decode(value, type=Dropped).lines
            yield LogLine(time=None, stream="engine", text=f"{count} lines were dropped: written too fast")
