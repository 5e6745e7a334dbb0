"""Socket to the engine, and the sending of answers and of user code's output as frames.

Standard library only, Python 3.9 syntax. ``engine/runtimes/protocol.py`` describes the frames. Each frame is sent
without interruption, even if several threads write. A process that user code forked sends no frames, because the
request would get a second answer.
"""

import _contextvars
import _thread
import os
import resource
import time
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals

from worker_frames import LOG, PROGRESS, answer_frame, high_water

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from worker_types import Origin

STDOUT, STDERR, LOGGER = 1, 2, 3
LONGEST_TEXT = 64 << 10  # bytes of a LOG frame
READ = 1 << 16
WHOLE = 1 << 14  # bytes that the kernel accepts whole or not at all


class Itself:
    """Placeholder for a request. Stands for the instance before, between and after its requests."""

    ticket, id = 0, ""


ITSELF = Itself()
#: Request for which code runs; None in a thread of unknown origin.
REQUEST: "_contextvars.ContextVar[Origin | None]" = _contextvars.ContextVar("functiond_request", default=None)


class Wire:
    def __init__(self, fd: int) -> None:
        self.fd, self.pid, self.memory = fd, os.getpid(), Memory()
        self.running: list[Any] = [ITSELF]  # the request; a second element once it is answered
        self.pieces: list[bytes] = []  # data read last, until it is added to ``received``
        self.received: bytes | bytearray = b""  # incomplete or later frames
        self.lock, self.busy = _thread.RLock(), False
        self.unfinished: dict[tuple[int, int, int], bytes] = {}  # unfinished lines, by ticket, stream and thread

    # --- receiving ---

    def read(self) -> "tuple[int | None, bytes]":
        """Return the kind and body of the next frame. The kind is None if the engine has closed the socket.

        ``read`` returns the same frame again until ``consume``: a signal handler may raise at any point, and no frame
        may be lost.
        """
        while not self.has_frame():
            if not self.pieces:
                self.receive()
            (data,) = self.pieces
            if not data:
                return None, b""
            if self.received:
                if isinstance(self.received, bytes):
                    self.received = bytearray(self.received)
                # In one call: see ``begin``.
                list(map(bytearray.__iadd__, (self.received,), iter(self.pieces.pop, None)))
            else:
                list(map(setattr, (self, self), ("received", "pieces"), (data, [])))
        return self.received[4], bytes(self.received[5 : self.length()])

    def receive(self) -> None:
        try:
            self.pieces.extend(map(os.read, (self.fd,), (self.missing(),)))  # in one call: see ``send``
        except OSError as error:
            if error.errno is None:  # raised by a signal handler, for example TimeoutError
                raise
            self.pieces.append(b"")

    def consume(self) -> None:
        self.received = self.received[self.length() :]

    def has_frame(self) -> bool:
        """Return whether the next frame can be read without waiting."""
        return len(self.received) >= 4 and len(self.received) >= self.length()

    def length(self) -> int:
        return int.from_bytes(self.received[:4], "big") + 4

    def missing(self) -> int:
        return READ if len(self.received) < 4 else min(self.length() - len(self.received), 1 << 20)

    # --- sending ---

    def current(self) -> "Origin":
        """Return the request for which the calling code runs, or ``ITSELF``."""
        running = self.running
        return running[0] if len(running) == 1 else ITSELF

    def begin(self, request: "Origin") -> None:
        """Make this request, which was read from the next frame, the running one, and consume the frame."""
        # In one call, which no signal handler interrupts. Python 3.9 runs handlers between any two assignments, and the
        # frame could then be read, and answered, twice.
        values = [request], self.received[self.length() :]
        list(map(setattr, (self, self), ("running", "received"), values))
        REQUEST.set(request)

    def runs(self, context: object) -> bool:
        """Return whether the request that has this context has no answer yet."""
        return getattr(self.current(), "context", None) is context

    def end(self, request: "Origin", frames: bytes) -> None:
        """Send the frames of the answer and end the request."""
        self.send(frames, self.running)

    def answer(self, kind: int, request: "Origin", code: int, message: str, result: bytes) -> None:
        """Send the answer to a request, after all its log lines.

        Later output of its threads belongs to the instance.
        """
        if os.getpid() != self.pid:
            self.flush()
            os._exit(0)  # a fork by user code returned from the handler; only one process may answer
        with self.lock:
            frames = answer_frame(kind, request.ticket, code, self.memory.peak(), message, result)
            if self.unfinished:
                frames = b"".join(self.finished(request)) + frames
            self.end(request, frames)

    def progress(self, ticket: int, fraction: float, note: str) -> None:
        """Send the progress of a request, unless the calling process is a fork or is sending log lines."""
        if os.getpid() != self.pid:
            return
        text = note.encode("utf-8", "replace")
        with self.lock:
            if not self.busy:
                self.send(
                    (9 + len(text)).to_bytes(4, "big")
                    + bytes((PROGRESS,))
                    + ticket.to_bytes(4, "big")
                    + round(fraction * 1_000_000).to_bytes(4, "big")
                    + text
                )

    def log(self, stream: int, data: bytes) -> None:
        """Send output of user code in whole lines.

        An unfinished line is sent when it is completed, or before the answer.
        """
        if os.getpid() != self.pid:
            self.log_raw(stream, data)
            return
        with self.lock:
            if self.busy:  # a signal handler or finalizer runs during a frame
                write_raw(stream, data)
                return
            self.busy = True
            try:
                self.log_lines((self.current().ticket, stream, _thread.get_ident()), data)
            finally:
                self.busy = False

    def log_lines(self, key: "tuple[int, int, int]", data: bytes) -> None:
        if self.unfinished:
            data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1
        if len(data) - whole > LONGEST_TEXT:
            whole = len(data)
        if whole < len(data):
            self.unfinished[key] = data[whole:]
        if whole:
            self.send(b"".join(log_frames(key, data[:whole])))

    def log_raw(self, stream: int, data: bytes) -> None:
        """Write output of a process that user code forked to descriptor 1 or 2, in whole lines.

        The lock is not taken, because another thread may have held it during the fork and nothing would release it.
        """
        key = -os.getpid(), stream, _thread.get_ident()
        data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1
        if whole:
            write_raw(stream, data[:whole])
        if whole < len(data):
            self.unfinished[key] = data[whole:]

    def flush(self) -> None:
        """Write the unfinished lines of a process that user code forked. Do nothing in the instance itself."""
        pid = os.getpid()
        if pid != self.pid:
            for key in [key for key in self.unfinished if key[0] == -pid]:
                write_raw(key[1], self.unfinished.pop(key))

    def finish(self, request: "Origin") -> None:
        """Send the unfinished log lines of a request."""
        with self.lock:
            self.send(b"".join(self.finished(request)))

    def finished(self, request: "Origin") -> "Iterator[bytes]":
        for key in [key for key in self.unfinished if key[0] == request.ticket]:
            yield from log_frames(key, self.unfinished.pop(key))

    def send(self, frames: bytes, sent: "list[Any] | None" = None) -> None:
        """Send frames to the engine. Call with the lock held.

        An item is added to the list ``sent`` in the same step that passes the frames to the kernel. No signal handler
        can run between both, so the list shows reliably whether the frames were sent.
        """
        sent = [] if sent is None else sent
        try:
            if len(frames) <= WHOLE:
                sent.extend(map(os.write, (self.fd,), (frames,)))  # in one call, which no signal handler interrupts
            else:
                self.send_with_signals_blocked(memoryview(frames), sent)
        except OSError as error:
            if error.errno is None:
                raise
            os._exit(0)  # the engine has closed the socket

    def send_with_signals_blocked(self, frames: memoryview, sent: "list[Any]") -> None:
        """Send frames in several parts, with signals blocked.

        A signal handler that raised an error between two parts would leave an incomplete frame.
        """
        signals = pthread_sigmask(SIG_BLOCK, ())
        try:
            pthread_sigmask(SIG_BLOCK, valid_signals())  # a handler may still raise during this call
            while frames:
                frames = frames[os.write(self.fd, frames) :]
            sent.append(True)
        finally:
            pthread_sigmask(SIG_SETMASK, signals)


def log_frames(key: "tuple[int, int, int]", text: bytes) -> "Iterator[bytes]":
    """Yield the LOG frames for a text. Long text is split between lines or, within a long line, between characters."""
    ticket, stream, _ = key
    begin, size = 0, len(text)
    while begin < size:
        end = size
        if size - begin > LONGEST_TEXT:
            end = begin + LONGEST_TEXT
            end = text.rfind(b"\n", begin, end) + 1 or end
            while end < size and text[end] & 0xC0 == 0x80 and end > begin + LONGEST_TEXT - 4:
                end -= 1
        yield (
            (14 + end - begin).to_bytes(4, "big")
            + bytes((LOG,))
            + ticket.to_bytes(4, "big")
            + int(time.time() * 1000).to_bytes(8, "big")
            + bytes((stream,))
            + text[begin:end]
        )
        begin = end


def write_raw(stream: int, data: bytes) -> None:
    """Write output to descriptor 1 or 2, by which the engine cannot tell to which request the output belongs."""
    try:
        os.write(2 if stream == STDERR else 1, data)
    except OSError:
        return  # closed by user code; the text is lost


class Memory:
    """Highest resident memory of this process.

    The value of getrusage does not suffice, because in a process made by vfork and exec it starts with the engine's
    peak. In such a process /proc is read instead, but only if page faults have occurred since the last call.
    """

    def __init__(self) -> None:
        self.inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.faults, self.cached = -1, 0

    def peak(self) -> int:
        """Return the highest resident memory so far in KiB."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if usage.ru_maxrss > self.inherited:
            return usage.ru_maxrss
        if usage.ru_minflt != self.faults:
            self.cached = high_water("self") or usage.ru_maxrss
            # Reading /proc causes page faults, too.
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return self.cached
