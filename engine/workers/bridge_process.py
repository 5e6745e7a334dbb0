"""Child process that runs the user's ``bootstrap``, its descendants, and the check that a connection is from one.

Other functions on the host could connect to the runtime API, too, but must not receive this function's events. Standard
library only, Python 3.9 syntax.
"""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress

from bridge_program import advice_on, refusal
from worker_frames import ENTRY, INIT_FAILED, PREFIX, high_water

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

PARENT_DEATH_SIGNAL, CHILD_SUBREAPER = 1, 36  # of prctl
MAX_AGE = 0.1  #: seconds until the peak of memory is measured again
SOCK_DIAG = 4  # of netlink
BY_FAMILY, REQUEST = 20, 1  # of its messages
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
QUESTION = struct.Struct("=BBBxI")  # family, protocol, extensions, states
ENDS = struct.Struct("!HH4s12x4s12x4x8s")  # ports, addresses, interface, cookie
ANY_COOKIE = b"\xff" * 8
INODE = 84  # offset in an answer


class CannotStart(Exception):
    """Instance that cannot be started. The text of the exception explains what to do."""

    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, PREFIX[code] + text)
        self.code = code


def find_bootstrap(folders: "list[str]") -> str:
    """Return the path of the first ``bootstrap`` in the code folder or, as on AWS Lambda, in the function's layers.

    Raises CannotStart if there is none, or if it is a program that this machine cannot run.
    """
    for folder in folders:
        path = os.path.join(folder, "bootstrap")
        if os.path.isfile(path):
            if reason := refusal(path):
                raise CannotStart(ENTRY, reason)
            return path
    raise CannotStart(ENTRY, "there is no file bootstrap in the root folder of the code, for this runtime to start")


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def exit_with_parent(parent: int, number: int) -> None:
    """Have the kernel send this process the signal ``number`` when its parent exits."""
    prctl(PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os._exit(0)


class Bootstrap:
    """Child process that runs the user's bootstrap. ``pidfd`` becomes readable when the process exits."""

    def __init__(self, path: str, environment: "dict[str, str]", prepare: "Callable[[], object]") -> None:
        """Start the process; ``prepare`` is called in the child before exec.

        Raises CannotStart if bootstrap cannot be run.
        """
        try:
            self.process = start(path, environment, prepare)
        except OSError as error:
            advice = advice_on(path) or "see that the interpreter on its first line, or of a dynamic program, is there"
            raise CannotStart(ENTRY, f"bootstrap cannot be started: {error.strerror}; {advice}") from None
        except subprocess.SubprocessError as error:
            raise CannotStart(INIT_FAILED, f"bootstrap cannot be prepared: {error}") from None
        self.path, self.pid = path, self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.measured, self.peak = -MAX_AGE, 0

    def memory(self) -> int:
        """Return the highest memory use of all descendants in KiB: the largest sum of their peaks measured so far."""
        now = time.monotonic()
        if now - self.measured > MAX_AGE:
            self.reap_adopted()
            self.peak = max(self.peak, sum(high_water(pid) for pid in descendants()))
            self.measured = now
        return self.peak

    def signal(self, number: int) -> None:
        """Send bootstrap and all its descendants a signal, as a shell does not forward signals to its children."""
        for pid in {self.pid, *descendants()}:
            with suppress(OSError):  # it has exited
                os.kill(pid, number)

    def reap_adopted(self) -> None:
        """Reap exited descendants whose parent exited before. The exit of bootstrap itself is handled elsewhere."""
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != self.pid:
            os.waitpid(ended.si_pid, 0)

    def exit_like_bootstrap(self) -> "NoReturn":
        """End this process with the status or signal of bootstrap, which the engine then reports as the reason."""
        status = self.process.wait()
        if status < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if -status != signal.SIGKILL:
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
            status = 128 - status  # pid 1 of a namespace cannot kill itself by a signal
        os._exit(status)


def start(path: str, environment: "dict[str, str]", prepare: "Callable[[], object]") -> "subprocess.Popen[bytes]":
    bridge = os.getpid()
    command = [path]

    def before() -> None:
        exit_with_parent(bridge, signal.SIGKILL)
        prepare()

    while True:
        try:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=before)
        except OSError as error:
            # A file without a #! line is run by a shell, as shells do.
            if error.errno != errno.ENOEXEC or len(command) > 1:
                raise
            command = ["/bin/sh", path]


def descendants() -> "list[int]":
    """Return the ids of the descendants of this process, as far as the kernel lists them."""
    pids = list(children(os.getpid()))
    for pid in pids:
        pids.extend(children(pid))
    return pids


def children(pid: int) -> "Iterator[int]":
    tasks = f"/proc/{pid}/task"
    try:
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/children") as file:
                yield from map(int, file.read().split())
    except OSError:
        return  # exited, or not supported by this kernel


# --- connections of descendants ---


def listening_addresses() -> "Iterator[tuple[str, int]]":
    """Yield the addresses and ports on which descendants of this process accept TCP connections."""
    held = {link for pid in descendants() for link in descriptors(pid)}
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        with suppress(OSError), open(f"/proc/self/net/{name}") as file:  # no IPv6
            for line in file:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in held:
                    digits, _, port = local.partition(":")
                    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
                    yield socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)), int(port, 16)


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
