"""Socket to the engine, and output of user code as frames on it. Standard library only, Python 3.9 syntax.

``engine/runtimes/protocol.py`` describes the frames. Each frame is sent whole, even if several threads write. A
process that user code forked sends no frames: its answer would be the second for the request.
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
WHOLE = 1 << 14  # bytes that the kernel accepts whole or not at all


class ITSELF:
    """Placeholder for a request: the instance before, between and after its requests."""

    ticket, id = 0, ""


class Wire:
    def __init__(self, fd):
        self.fd, self.pid, self.memory = fd, os.getpid(), Memory()
        self.running = [ITSELF]  # the request; a second element once it is answered
        self.pieces = []  # data read last, until it is added to ``received``
        self.received = b""  # incomplete or later frames
        self.lock, self.busy = _thread.RLock(), False
        self.unfinished = {}  # unfinished lines, by ticket, stream and thread

    # --- receiving ---

    def read(self):
        """Return kind and body of the next frame; the kind is None when the engine has closed the socket.

        The frame stays the next one until ``consume``: a signal handler may raise at any point, and no frame may be
        lost.
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
            if error.errno is None:  # raised by a signal handler, for example TimeoutError
                raise
            self.pieces.append(b"")

    def consume(self):
        self.received = self.received[self.length():]

    def has_frame(self):
        """Return whether the next frame can be read without waiting."""
        return len(self.received) >= 4 and len(self.received) >= self.length()

    def length(self):
        return int.from_bytes(self.received[:4], "big") + 4

    def missing(self):
        return READ if len(self.received) < 4 else min(self.length() - len(self.received), 1 << 20)

    # --- sending ---

    def current(self):
        """Return the request for which the calling code runs."""
        running = self.running
        return running[0] if len(running) == 1 else ITSELF

    def begin(self, request):
        """Start the request of the next frame, and consume the frame."""
        # In one statement, which no signal handler interrupts.
        self.running, self.received = [request], self.received[self.length():]

    def end(self, request, frames):
        """Send the answer to a request."""
        self.send(frames, self.running)

    def answer(self, kind, request, code, message, result):
        """Send the answer after all lines of the request. Later output of its threads belongs to the instance."""
        if os.getpid() != self.pid:
            self.flush()
            os._exit(0)  # a fork by user code returned from the handler; only one process may answer
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace") if message else b""
        with self.lock:
            frames = ((15 + len(text) + len(result)).to_bytes(4, "big") + bytes((kind,))
                      + request.ticket.to_bytes(4, "big") + code.to_bytes(2, "big")
                      + self.memory.peak().to_bytes(4, "big") + len(text).to_bytes(4, "big") + text + result)
            if self.unfinished:
                frames = b"".join(self.finished(request)) + frames
            self.end(request, frames)

    def log(self, stream, data):
        """Send output of user code in whole lines. An unfinished line is sent when it ends, or before the answer."""
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
        """Write output of a process that user code forked, in whole lines, to its descriptor.

        The lock is not taken: after a fork it may stay locked forever.
        """
        key = -os.getpid(), stream, _thread.get_ident()
        data = self.unfinished.pop(key, b"") + data
        whole = data.rfind(b"\n") + 1
        if whole:
            write_raw(stream, data[:whole])
        if whole < len(data):
            self.unfinished[key] = data[whole:]

    def flush(self):
        """Write the unfinished lines of a process that user code forked. Does nothing in the instance itself."""
        pid = os.getpid()
        if pid != self.pid:
            for key in [key for key in self.unfinished if key[0] == -pid]:
                write_raw(key[1], self.unfinished.pop(key))

    def finish(self, request):
        """Send the unfinished lines of a request."""
        with self.lock:
            self.send(b"".join(self.finished(request)))

    def finished(self, request):
        for key in [key for key in self.unfinished if key[0] == request.ticket]:
            yield from log_frames(key, self.unfinished.pop(key))

    def send(self, frames, sent=None):
        """Send frames. Call with the lock held.

        ``sent`` is extended in the step that passes the frames to the kernel, so that no signal handler can run
        between the two.
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

    def send_with_signals_blocked(self, frames, sent):
        """Send frames in several parts. A signal handler that raised between two parts would tear a frame."""
        signals = pthread_sigmask(SIG_BLOCK, ())
        try:
            pthread_sigmask(SIG_BLOCK, valid_signals())  # a handler may still raise during this call
            while frames:
                frames = frames[os.write(self.fd, frames):]
            sent.append(True)
        finally:
            pthread_sigmask(SIG_SETMASK, signals)


def log_frames(key, text):
    """Yield log frames. Long text is split between lines, or at least between characters."""
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
    """Write output to the descriptor of its stream, which does not carry the request of the output."""
    try:
        os.write(2 if stream == STDERR else 1, data)
    except OSError:
        pass  # closed by user code; the text is lost


class Memory:
    """Peak of resident memory.

    The value of getrusage does not suffice: for a child made by vfork and exec it starts with the engine's peak. Then
    /proc is read instead, but only if page faults have occurred since the last time.
    """

    def __init__(self):
        self.inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.faults, self.cached = -1, 0

    def peak(self):
        """Return the peak in KiB."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if usage.ru_maxrss > self.inherited:
            return usage.ru_maxrss
        if usage.ru_minflt != self.faults:
            self.cached = self.high_water() or usage.ru_maxrss
            # Reading /proc causes page faults, too.
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return self.cached

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
