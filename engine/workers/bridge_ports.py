"""Port mapping for HTTP functions that share a network: a ``bind`` to port 8000 gets a free port instead.

The kernel notifies the bridge of each ``bind`` of its descendants (seccomp user notification, Linux 5.5 and newer). The
bridge writes the number of a free port into the address in the caller's memory and lets the call continue. No privilege
is needed. Functions keep access to the host's network, which they would lose in a network namespace.

Standard library only, Python 3.9 syntax.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct

from bridge_loop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PORT = 8000  #: port that servers of HTTP functions bind
#: audit architecture and numbers of bind and seccomp, by machine
CALLS = {"x86_64": (0xC000003E, 49, 317), "aarch64": (0xC00000B7, 200, 277)}
NO_NEW_PRIVILEGES = 38  # of prctl
SET_FILTER, NEW_LISTENER = 1, 8  # of seccomp
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # instructions of a filter
NUMBER, MACHINE = 0, 4  # offsets in the filter's data
ALLOW, ASK = 0x7FFF0000, 0x7FC00000  # return values of a filter
NOTICE = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, number, machine, pointer, arguments
REPLY = struct.Struct("=QqiI")  # id, value, error, flags
RECEIVE, SEND, STILL_VALID, CONTINUE = 0xC0502100, 0xC0182101, 0x40082102, 1  # ioctls of the listener, and a flag
FAMILIES = (socket.AF_INET, socket.AF_INET6)  # the port follows the family in both


class PortMap:
    """Mapping of port 8000 for one instance.

    ``port`` is the port that the function's server really uses; 0 before the server's first ``bind``. ``on_bind`` is
    called after this ``bind``.
    """

    def __init__(self, loop: Loop, on_bind: "Callable[[], object]") -> None:
        self.loop, self.on_bind = loop, on_bind
        self.port = 0
        self.listener: int  # once ``listen`` has received it
        self.readable = select.poll()
        self.receiver, self.sender = socket.socketpair()

    def install(self) -> None:
        """Install the seccomp filter that reports each ``bind``. Raises OSError if the kernel refuses the filter.

        Call in the child process, before it executes bootstrap.
        """
        machine, bind, seccomp = CALLS[platform.machine()]
        code = (
            (LOAD, 0, 0, MACHINE),
            (IF_EQUAL, 0, 3, machine),
            (LOAD, 0, 0, NUMBER),
            (IF_EQUAL, 0, 1, bind),
            (RETURN, 0, 0, ASK),
            (RETURN, 0, 0, ALLOW),
        )
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
        description = struct.pack("@HP", len(code), ctypes.addressof(program))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        listener = libc.syscall(seccomp, SET_FILTER, NEW_LISTENER, description)
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(self.sender, [b"x"], [listener])

    def listen(self) -> None:
        """Receive the descriptor of the filter's notifications from the child process, and watch it.

        Call in the bridge, after bootstrap was started. If several attempts were needed to start bootstrap, the
        descriptor of the last attempt is used.
        """
        self.receiver.setblocking(False)
        received: list[int] = []
        while True:
            try:
                _, (listener,), _, _ = socket.recv_fds(self.receiver, 1, 1)
            except BlockingIOError:
                break
            received.append(listener)
        *earlier, self.listener = received
        for listener in earlier:
            os.close(listener)
        self.receiver.close()
        self.sender.close()
        self.readable.register(self.listener, select.POLLIN)
        self.loop.watch(self.listener, READ, self.answer)

    def answer(self, events: int) -> None:
        """Receive the notification of one ``bind``, replace the port if necessary, and let the call continue."""
        if not any(flags & select.POLLIN for _, flags in self.readable.poll(0)):
            self.loop.unwatch(self.listener)  # hung up: all filtered processes have exited
            return
        notice = bytearray(NOTICE.size)
        try:
            fcntl.ioctl(self.listener, RECEIVE, notice)
        except OSError:  # the calling process has exited
            return
        number, pid, _, _, _, _, _, address, size, *_ = NOTICE.unpack(notice)
        first, error, flags = not self.port, 0, CONTINUE
        try:
            self.replace(number, pid, address, size)
        except OSError as problem:
            error, flags = -(problem.errno or errno.EIO), 0
        try:
            fcntl.ioctl(self.listener, SEND, REPLY.pack(number, 0, error, flags))
        except OSError:  # the calling process has exited
            return
        if first and self.port:
            self.on_bind()

    def replace(self, number: int, pid: int, address: int, size: int) -> None:
        """Replace port 8000 in the address that a process passes to ``bind``. Leave other ports unchanged.

        Raises OSError if the memory of the process is not accessible, the process has exited, or no port is free.
        """
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(self.listener, STILL_VALID, number.to_bytes(8, "little"))  # fails if the pid was reused
            if size < 4:
                return
            family, port = struct.unpack("=H2s", os.pread(memory, 4, address))
            if family in FAMILIES and int.from_bytes(port, "big") == PORT:
                self.port = self.port or free_port()
                os.pwrite(memory, self.port.to_bytes(2, "big"), address + 2)
        finally:
            os.close(memory)


def free_port() -> int:
    """Return a port that is free on all addresses of the host. Raises OSError if there is none."""
    for family in reversed(FAMILIES):
        try:
            with socket.socket(family) as probe:
                probe.bind(("", 0))
                port: int = probe.getsockname()[1]
                return port
        except OSError:
            pass  # no IPv6
    raise OSError(errno.EADDRINUSE, "no port is free")
