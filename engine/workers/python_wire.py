"""The socket between an instance and the engine, whose frames ``engine/frames.py`` describes.

What user code prints goes out as frames, too, each line as it is finished; nothing is written to the descriptors of
stdout and stderr but by those who must not use the socket. Standard library only, Python 3.9 syntax.
"""

import _thread
import io
import os
import resource
import sys
import time

SETUP, INVOKE, STOP = 1, 2, 3  # what comes; an answer has the number of its request
LOG = 3
ITSELF = 0  # the ticket of the instance
STDOUT, STDERR, LOGGER = 1, 2, 3  # streams
LONGEST_MESSAGE = 4096
LONGEST_TEXT = 64 << 10


class Wire:
    def __init__(self, fd):
        self.fd, self.pid, self.memory = fd, os.getpid(), Memory()
        self.ticket = ITSELF  # of the request that runs
        self.ahead = b""  # read with an earlier frame
        self.lock, self.sender = _thread.allocate_lock(), None
        self.unfinished = {}  # lines without an end yet, by ticket and stream

    def read(self):
        """One frame: its kind and body; None when the engine has closed the socket."""
        data, self.ahead = self.ahead or os.read(self.fd, 65536), b""
        while len(data) < 4:
            more = os.read(self.fd, 65536)
            if not more:
                return None
            data += more
        length = int.from_bytes(data[:4], "big") + 4
        if len(data) < length:
            pieces, have = [data], len(data)
            while have < length:
                more = os.read(self.fd, length - have)
                if not more:
                    return None
                pieces.append(more)
                have += len(more)
            data = b"".join(pieces)
        elif len(data) > length:
            data, self.ahead = data[:length], data[length:]
        return data[4], data[5:]

    def answer(self, kind, ticket, code, message, result):
        if os.getpid() != self.pid:
            os._exit(0)  # a child that user code forked came back from the handler: there is one answer, not two
        flush()
        self.finish(ticket)
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace")
        length = 15 + len(text) + len(result)
        head = (length.to_bytes(4, "big") + bytes((kind,)) + ticket.to_bytes(4, "big") + code.to_bytes(2, "big")
                + self.memory.peak().to_bytes(4, "big") + len(text).to_bytes(4, "big"))
        self.send(head + text + result)

    def send(self, frame):
        """Whole, whatever other threads send."""
        with self.lock:
            self.sender = _thread.get_ident()
            try:
                sent = os.write(self.fd, frame)
                if sent < len(frame):
                    rest = memoryview(frame)
                    while sent < len(frame):
                        sent += os.write(self.fd, rest[sent:])
            finally:
                self.sender = None

    def log(self, stream, data):
        """What user code wrote: its whole lines go out now, the rest when it is finished, or with the answer."""
        if os.getpid() != self.pid or self.sender == _thread.get_ident():
            # A forked child must not use the socket; nor may a signal handler in the middle of a frame.
            os.write(2 if stream == STDERR else 1, data)
            return
        key = self.ticket, stream
        if self.unfinished:
            data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1 or len(data) // LONGEST_TEXT * LONGEST_TEXT
        if whole < len(data):
            self.unfinished[key] = data[whole:]
            data = data[:whole]
        for begin in range(0, whole, LONGEST_TEXT):
            self.send_text(key, data[begin:begin + LONGEST_TEXT])

    def finish(self, ticket):
        """Send what a request has written of lines without an end."""
        for key in [key for key in self.unfinished if key[0] == ticket]:
            self.send_text(key, self.unfinished.pop(key))

    def send_text(self, key, text):
        ticket, stream = key
        self.send((14 + len(text)).to_bytes(4, "big") + bytes((LOG,)) + ticket.to_bytes(4, "big")
                  + int(time.time() * 1000).to_bytes(8, "big") + bytes((stream,)) + text)


class Stream(io.RawIOBase):
    """What is below ``sys.stdout`` and ``sys.stderr``."""

    def __init__(self, wire, number):
        self.wire, self.number = wire, number

    @property
    def name(self):
        return "<stdout>" if self.number == STDOUT else "<stderr>"

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data)
        self.wire.log(self.number, data)
        return len(data)

    def fileno(self):
        return self.number

    @classmethod
    def text(cls, wire, number):
        return io.TextIOWrapper(cls(wire, number), encoding="utf-8", errors="backslashreplace", write_through=True)


class Memory:
    """The peak of resident memory. getrusage alone would do, but a child made by vfork and exec inherits there the
    peak of the engine; so /proc is asked, only when pages have been faulted in since."""

    def __init__(self):
        self.inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.faults, self.known = -1, 0

    def peak(self):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if usage.ru_maxrss > self.inherited:
            return usage.ru_maxrss
        if usage.ru_minflt != self.faults:
            self.known = self.high_water() or usage.ru_maxrss
            # Asking faults pages in, too.
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return self.known

    @staticmethod
    def high_water():
        try:
            fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, 4096)
            finally:
                os.close(fd)
            at = text.index(b"VmHWM:")
            return int(text[at + 6:text.index(b"kB", at)])
        except (OSError, ValueError):
            return 0


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # user code may have closed or replaced it
