"""``sys.stdout`` and ``sys.stderr`` of an instance.

Output is sent to the engine with the ticket of the request that wrote it. Descriptors 1 and 2 remain pipes, for
subprocesses and native code. Standard library only, Python 3.9 syntax.
"""

import io
import sys

from python_wire import STDERR, STDOUT, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Stream(io.TextIOBase):
    """Text stream.

    Not a TextIOWrapper, because its single buffer would mix the text of several threads and requests.
    """

    encoding, errors, newlines, line_buffering, write_through, mode = "utf-8", "backslashreplace", None, True, True, "w"

    def __init__(self, wire: Wire, number: int) -> None:
        io.TextIOBase.__init__(self)
        self.wire, self.number = wire, number
        self.name = "<stdout>" if number == STDOUT else "<stderr>"
        self.buffer = Bytes(self)

    def write(self, text: str) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self.wire.log(self.number, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        io.TextIOBase.flush(self)
        self.wire.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def detach(self) -> "Any":
        return self.buffer

    def reconfigure(self, **options: object) -> None:
        """Ignore all options: the stream always writes UTF-8 and is line-buffered."""


class Bytes(io.BufferedIOBase):
    """Binary stream, used as ``sys.stdout.buffer`` and ``sys.stderr.buffer``."""

    def __init__(self, text: Stream) -> None:
        io.BufferedIOBase.__init__(self)
        self.text, self.name, self.mode = text, text.name, "wb"

    def write(self, data: "Any") -> int:
        if self.closed:
            raise ValueError("write to closed file")
        data = bytes(data)
        self.text.wire.log(self.text.number, data)
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.text.number


def redirect(wire: Wire) -> None:
    out, err = Stream(wire, STDOUT), Stream(wire, STDERR)
    vars(sys).update(stdout=out, __stdout__=out, stderr=err, __stderr__=err)


def flush() -> None:
    """Flush streams by which user code has replaced ``sys.stdout`` or ``sys.stderr``.

    Called when a request ends, because the buffered text belongs to this request.
    """
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is not Stream:
            try:
                stream.flush()
            except Exception:
                continue  # may be closed
