"""Event loop of the bridge: watches sockets and other descriptors, and runs timers.

Standard library only, Python 3.9 syntax. asyncio is not used, because importing it takes longer than all other work at
the start of an instance.
"""

import errno
import selectors
import socket
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
PIECE = 1 << 16  #: bytes per read


class Loop:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def watch(self, file: "int | socket.socket", events: int, callback: "Callable[[int], object]") -> None:
        """Call ``callback(events)`` when one of these events (``READ``, ``WRITE``) occurs on the file.

        Replaces an earlier watch of the file.
        """
        try:
            self.selector.register(file, events, callback)
        except KeyError:
            self.selector.modify(file, events, callback)

    def unwatch(self, file: "int | socket.socket") -> None:
        with suppress(KeyError):
            self.selector.unregister(file)

    def later(self, seconds: float, callback: "Callable[[], object]") -> None:
        self.timers.append((time.monotonic() + seconds, callback))

    def run(self) -> "NoReturn":
        """Call the callbacks of files and timers until the process exits."""
        while True:
            max_wait = None
            if self.timers:
                max_wait = max(0.0, min(when for when, _ in self.timers) - time.monotonic())
            for key, events in self.selector.select(max_wait):
                key.data(events)
            if self.timers:
                self.run_due_timers()

    def run_due_timers(self) -> None:
        now = time.monotonic()
        due = [callback for when, callback in self.timers if when <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for callback in due:
            callback()


class Connection:
    """Connection. ``on_data`` receives the data; ``on_end`` is called when the peer closes it or it fails."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_data: "Callable[[bytes], object]", on_end: "Callable[[], object]"
    ) -> None:
        self.loop, self.sock, self.on_data, self.on_end = loop, sock, on_data, on_end
        self.unsent = b""
        self.last = False  #: no data may follow
        self.closed = False
        sock.setblocking(False)
        self.is_tcp = sock.family == socket.AF_INET
        if self.is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock, READ, self.on_event)

    def write(self, data: bytes, last: bool = False) -> None:
        """Send data; ``last`` means that no more data follows. An error is reported later, by ``on_end``."""
        if self.closed:
            return
        waiting = bool(self.unsent)
        self.unsent, self.last = self.unsent + data, last
        self.flush()
        if self.unsent and not waiting:
            self.loop.watch(self.sock, READ | WRITE, self.on_event)

    def alive(self) -> bool:
        """Return False if the peer has closed the connection. Call only while no data from the peer is expected."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.unwatch(self.sock)
            self.sock.close()

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
            if self.last and not self.unsent:
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self.loop.watch(self.sock, READ, self.on_event)

    def on_event(self, events: int) -> None:
        if events & WRITE and not self.closed:
            self.flush()
            if not self.unsent:
                self.loop.watch(self.sock, READ, self.on_event)
        if events & READ and not self.closed:
            try:
                data = self.sock.recv(PIECE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                # Many programs write head and body separately; the second write waits 40 ms for a late acknowledgement.
                if self.is_tcp:
                    self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                self.on_data(data)
            else:
                self.close()
                self.on_end()


def connect(loop: Loop, address: "tuple[str, int]", done: "Callable[[socket.socket | None], object]") -> None:
    """Connect to the address, then call ``done`` with the socket, or with None if the connection failed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)

    def finish(events: int) -> None:
        loop.unwatch(sock)
        conclude(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def conclude(error: int) -> None:
        if error:
            sock.close()
        done(None if error else sock)

    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS:
        loop.watch(sock, WRITE, finish)
    else:
        conclude(error)
