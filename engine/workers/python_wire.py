"""The socket to the engine, and what user code prints as frames on it. Standard library only, Python 3.9 syntax.

``engine/runtimes/protocol.py`` describes the frames. Whatever threads write, a frame is whole; a process that user code forked
never writes here: its answer would be a second one.
"""

import _thread
import os
import resource
import time
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals

SETUP, INVOKE, STOP = 1, 2, 3
READY, DONE, LOG = 1, 2, 3
STDOUT, STDERR, LOGGER = 1, 2, 3
LONGEST_MESSAGE = 4096  # characters
LONGEST_TEXT = 64 << 10  # bytes of a LOG frame
READ = 1 << 16
WHOLE = 1 << 14  # bytes that the kernel takes at once or not at all


class ITSELF:
    """In place of a request: the instance, before, between and after its requests."""

    ticket, id = 0, ""


class Wire:
    def __init__(self, fd):
        self.fd, self.pid, self.memory = fd, os.getpid(), Memory()
        self.running = [ITSELF]  # the request; behind it something more as soon as it is answered
        self.pieces = []  # the one that was read last, until it is part of the following
        self.received = b""  # what is no whole frame yet, or belongs to a later one
        self.lock, self.busy = _thread.RLock(), False
        self.unfinished = {}  # lines without an end yet, by ticket, stream and thread

    # --- what comes in ---

    def read(self):
        """The next frame: its kind and body; the kind is None when the engine has closed the socket.

        It stays the next one until it is ``taken``: a signal handler may raise anywhere, and nothing is lost.
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
                self.received += data
            else:
                self.received = data
            self.pieces = []
        return self.received[4], bytes(self.received[5:self.length()])

    def receive(self):
        try:
            self.pieces.extend(map(os.read, (self.fd,), (self.missing(),)))  # in one call: see ``send``
        except OSError as error:
            if error.errno is None:  # a signal handler's TimeoutError, say
                raise
            self.pieces.append(b"")

    def taken(self):
        self.received = self.received[self.length():]

    def has_frame(self):
        """Whether the next one would come without waiting."""
        return len(self.received) >= 4 and len(self.received) >= self.length()

    def length(self):
        return int.from_bytes(self.received[:4], "big") + 4

    def missing(self):
        return READ if len(self.received) < 4 else min(self.length() - len(self.received), 1 << 20)

    # --- what goes out ---

    def current(self):
        """The request on whose behalf this runs."""
        running = self.running
        return running[0] if len(running) == 1 else ITSELF

    def begin(self, request):
        """The request of the next frame runs from now on."""
        # At once: no signal handler may come between.
        self.running, self.received = [request], self.received[self.length():]

    def end(self, request, frames):
        """Send the answer to it."""
        self.send(frames, self.running)

    def answer(self, kind, request, code, message, result):
        """Comes after all lines of the request; what its threads write from now on is the instance's."""
        if os.getpid() != self.pid:
            self.flush()
            os._exit(0)  # a child that user code forked came back from the handler: there is one answer, not two
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace") if message else b""
        with self.lock:
            frames = ((15 + len(text) + len(result)).to_bytes(4, "big") + bytes((kind,))
                      + request.ticket.to_bytes(4, "big") + code.to_bytes(2, "big")
                      + self.memory.peak().to_bytes(4, "big") + len(text).to_bytes(4, "big") + text + result)
            if self.unfinished:
                frames = b"".join(self.finished(request)) + frames
            self.end(request, frames)

    def log(self, stream, data):
        """What user code wrote: its whole lines go out now, the rest when it is finished, or with the answer."""
        if os.getpid() != self.pid:
            self.log_raw(stream, data)
            return
        with self.lock:
            if self.busy:  # this is a signal handler or a finalizer, in the middle of a frame
                write_raw(stream, data)
                return
            self.busy = True
            try:
                self.log_lines((self.current().ticket, stream, _thread.get_ident()), data)
            finally:
                self.busy = False

    def log_lines(self, key, data):
        if self.unfinished:
            data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1
        if len(data) - whole > LONGEST_TEXT:
            whole = len(data)
        if whole < len(data):
            self.unfinished[key] = data[whole:]
        if whole:
            self.send(b"".join(log_frames(key, data[:whole])))

    def log_raw(self, stream, data):
        """In a forked process, whose lines should be as whole as any; the lock may be held for ever there."""
        key = -os.getpid(), stream, _thread.get_ident()
        data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1
        if whole:
            write_raw(stream, data[:whole])
        if whole < len(data):
            self.unfinished[key] = data[whole:]

    def flush(self):
        """A forked process has no answer by which its last line would be finished."""
        pid = os.getpid()
        if pid != self.pid:
            for key in [key for key in self.unfinished if key[0] == -pid]:
                write_raw(key[1], self.unfinished.pop(key))

    def finish(self, request):
        """Send what it has written of lines without an end."""
        with self.lock:
            self.send(b"".join(self.finished(request)))

    def finished(self, request):
        for key in [key for key in self.unfinished if key[0] == request.ticket]:
            yield from log_frames(key, self.unfinished.pop(key))

    def send(self, frames, sent=None):
        """Only with the lock. The list ``sent`` grows with the very step that gives them to the kernel."""
        sent = [] if sent is None else sent
        try:
            if len(frames) <= WHOLE:
                sent.extend(map(os.write, (self.fd,), (frames,)))  # in one call, which no signal handler divides
            else:
                self.send_undisturbed(memoryview(frames), sent)
        except OSError as error:
            if error.errno is None:
                raise
            os._exit(0)  # the engine has gone, and so must we

    def send_undisturbed(self, frames, sent):
        """A signal handler that raised between two parts would leave a frame torn."""
        signals = pthread_sigmask(SIG_BLOCK, ())
        try:
            pthread_sigmask(SIG_BLOCK, valid_signals())  # in here it still may
            while frames:
                frames = frames[os.write(self.fd, frames):]
            sent.append(True)
        finally:
            pthread_sigmask(SIG_SETMASK, signals)


def log_frames(key, text):
    """Text that is longer than a frame is split, between lines or at least between characters."""
    ticket, stream, _ = key
    begin, size = 0, len(text)
    while begin < size:
        end = size
        if size - begin > LONGEST_TEXT:
            end = begin + LONGEST_TEXT
            end = text.rfind(b"\n", begin, end) + 1 or end
            while end < size and text[end] & 0xC0 == 0x80 and end > begin + LONGEST_TEXT - 4:
                end -= 1
        yield ((14 + end - begin).to_bytes(4, "big") + bytes((LOG,)) + ticket.to_bytes(4, "big")
               + int(time.time() * 1000).to_bytes(8, "big") + bytes((stream,)) + text[begin:end])
        begin = end


def write_raw(stream, data):
    """To the descriptor, whose reader knows the stream and nothing more."""
    try:
        os.write(2 if stream == STDERR else 1, data)
    except OSError:
        pass  # user code has closed it, and nobody can be told


class Memory:
    """The peak of resident memory. getrusage alone would do, but a child made by vfork and exec inherits there the
    peak of the engine; so /proc is asked, only when pages have been faulted in since."""

    def __init__(self):
        self.inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.faults, self.known = -1, 0

    def peak(self):
        """In KiB."""
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
