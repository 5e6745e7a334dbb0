"""Check of the process at the other end of a loopback connection.

Other functions on the host could connect, too, but must not receive this function's events. Standard library only,
Python 3.9 syntax.
"""

import os
import socket
import struct
from contextlib import suppress

from bridge_outcomes import INIT_FAILED, CannotStart
from bridge_process import descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SOCK_DIAG = 4  # of netlink
BY_FAMILY, REQUEST = 20, 1  # of its messages
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
QUESTION = struct.Struct("=BBBxI")  # family, protocol, extensions, states
ENDS = struct.Struct("!HH4s12x4s12x4x8s")  # ports, addresses, interface, cookie
ANY_COOKIE = b"\xff" * 8
INODE = 84  # offset in an answer


def is_ours(sock: socket.socket) -> bool:
    """Return whether a descendant of this process has the other end of the connection. False if nobody has it now."""
    try:
        link = f"socket:[{inode_of(sock.getpeername(), sock.getsockname())}]"
    except OSError:
        return False
    return any(link in descriptors(pid) for pid in descendants())


def check_kernel(listener: socket.socket) -> None:
    """Raise CannotStart unless the kernel provides everything that ``is_ours`` needs."""
    try:
        os.stat(f"/proc/self/task/{os.getpid()}/children")
        if inode_of(listener.getsockname(), ("0.0.0.0", 0)) != os.fstat(listener.fileno()).st_ino:
            raise OSError("other inode")
    except OSError as error:
        text = f"the kernel does not tell which process uses the runtime API ({error})"
        advice = "load its module tcp_diag, or use a kernel with CONFIG_INET_DIAG and CONFIG_PROC_CHILDREN"
        raise CannotStart(INIT_FAILED, f"{text}: {advice}") from None


def inode_of(end: "tuple[str, int]", other: "tuple[str, int]") -> int:
    """Return the inode of the socket that has the first address, connected to the second.

    Raises OSError if the kernel does not provide it.
    """
    (address, port), (other_address, other_port) = end, other
    body = QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ENDS.pack(
        port, other_port, socket.inet_aton(address), socket.inet_aton(other_address), ANY_COOKIE
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as netlink:
        netlink.send(HEADER.pack(HEADER.size + len(body), BY_FAMILY, REQUEST, 0, 0) + body)
        answer = netlink.recv(4096)
    if HEADER.unpack_from(answer)[1] != BY_FAMILY:
        raise OSError("no answer")
    inode: int = struct.unpack_from("=I", answer, INODE)[0]
    return inode


def descriptors(pid: int) -> "Iterator[str]":
    """Yield the targets of the symbolic links in /proc/<pid>/fd, one for each open descriptor of the process."""
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return  # exited
    for number in numbers:
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(f"{folder}/{number}")
