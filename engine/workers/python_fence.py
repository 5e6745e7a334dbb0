"""Namespaces of a forked instance: process ids, mounts with a temporary folder, and network.

A fence is the set of namespaces of an instance: {"tmp": MiB, "network": bool, "user": id or null}. With ``network``,
the instance has a loopback of its own and nothing else. A fence needs capabilities, which forked processes inherit from
the template and drop before they run user code. Standard library only, Python 3.9 syntax.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from worker_types import Fence

NEW_MOUNTS, NEW_IPC, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x08000000, 0x20000000, 0x40000000
NO_SUID, NO_DEVICES, NO_EXEC, PRIVATE, RECURSIVE = 2, 4, 8, 1 << 18, 1 << 14
READ_ONLY, REMOUNT, BIND, SLAVE, DETACH = 1, 32, 1 << 12, 1 << 19, 2
OPT, FUNCTION, CODE = "/opt", "/opt/function", "/opt/function/code"
SET_FILTER, SPEC_ALLOW = 1, 4  # of seccomp; without the flag, kernels before 5.16 slow filtered processes down
DUMPABLE, NO_NEW_PRIVILEGES, AMBIENT, AMBIENT_CLEAR_ALL = 4, 38, 47, 4  # of prctl
CAPABILITY_VERSION = 0x20080522
GET_FLAGS, SET_FLAGS, INTERFACE_UP = 0x8913, 0x8914, 1  # of network interfaces

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: "int | bytes | None") -> None:
    if getattr(libc, name)(*args) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def fork(fence: "Fence | None") -> int:
    """Fork like os.fork. With a fence the child is the first process of a new pid namespace."""
    if fence is None:
        return os.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        call("unshare", NEW_PIDS)
        pid = os.fork()
        return pid
    finally:
        if pid:
            call("setns", own, NEW_PIDS)  # otherwise no second namespace could be created
        os.close(own)


def enter(fence: "Fence | None", fds: "Sequence[int]", report: int) -> None:
    """Create the namespaces of the fence, if there is one, and enter the cgroups when the engine allows it.

    Call in the forked process. Exit if the engine has closed the socket. With a fence the process forks once more and
    becomes the init, which reports the exit of its child; the function then returns only in the child. Raises
    OSError if a namespace or cgroup cannot be created or entered.
    """
    if fence is not None:
        create_mounts(fence["tmp"])
        if fence["network"]:
            create_network()
    if not enter_cgroups(fds[0]):
        os._exit(0)
    if fence is not None:
        # The init gets no handler: the signal then has no effect on it. With a handler, user code could end its init.
        handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
        first = os.fork()
        if first:
            become_init(first, fds, report)
        signal.signal(signal.SIGINT, handler)
        drop_rights(fence["user"])


def become_init(first: int, fds: "Sequence[int]", report: int) -> "NoReturn":
    """Reap all children until the process ``first`` exits, report its status, and exit. Never returns."""
    for fd in {0, 1, 2, *fds}:
        os.close(fd)
    pid = None
    while pid != first:
        pid, status = os.waitpid(-1, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    os.write(report, str(code).encode())
    os._exit(0)


def enter_cgroups(fd: int) -> bool:
    """Wait for the first byte on the socket, with which the descriptors of the cgroups arrive, and enter the cgroups.

    Return False if the engine has closed the socket. The process moves itself, because that is fast. If another process
    moved it, the kernel would first have to pause all processes of the machine (10 to 20 ms with version 1).
    """
    with socket.socket(fileno=os.dup(fd)) as own:
        data, cgroup_fds, _, _ = socket.recv_fds(own, 1, 4)
    for cgroup_fd in cgroup_fds:
        os.write(cgroup_fd, b"0")
        os.close(cgroup_fd)
    return bool(data)


def create_mounts(tmp: int) -> None:
    call("unshare", NEW_MOUNTS | NEW_IPC)
    call("mount", None, b"/", None, PRIVATE | RECURSIVE, None)
    call("mount", b"proc", b"/proc", b"proc", NO_SUID | NO_DEVICES | NO_EXEC, None)
    for folder in (b"/tmp", b"/dev/shm"):
        call("mount", b"tmpfs", folder, b"tmpfs", NO_SUID | NO_DEVICES, b"size=%dm,mode=1777" % tmp)


def create_opt(code: str, links: "dict[str, str]") -> None:
    """Give this process a /opt with what the host has there, the function's code, and links to interpreters.

    The host's /opt remains as it is. So does that of this process, if the machine does not allow the mounts, or has
    such a folder itself.
    """
    if os.path.exists(FUNCTION):
        return
    covered, mask = False, os.umask(0o022)  # others than the engine's user must see the folders
    try:
        call("unshare", NEW_MOUNTS)
        call("mount", None, b"/", None, SLAVE | RECURSIVE, None)
        host = os.open(OPT, os.O_RDONLY | os.O_CLOEXEC)
        call("mount", b"tmpfs", OPT.encode(), b"tmpfs", NO_SUID | NO_DEVICES, b"mode=755")
        covered = True
        for name in os.listdir(host):
            show(f"/proc/self/fd/{host}/{name}", os.path.join(OPT, name))
        os.close(host)  # with it, a bootstrap could read and write the host's /opt
        os.mkdir(FUNCTION)
        show(code, CODE)
        for path, target in links.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
        call("mount", None, OPT.encode(), None, REMOUNT | READ_ONLY, None)
    except OSError:
        if covered:
            call("umount2", OPT.encode(), DETACH)
    finally:
        os.umask(mask)


def show(source: str, path: str) -> None:
    """Make a file, folder or symbolic link visible at another path, which does not exist yet."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), path)
        return
    if os.path.isdir(source):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC))
    call("mount", os.fsencode(source), os.fsencode(path), None, BIND | RECURSIVE, None)


def create_network() -> None:
    """Move this process into a new network namespace, which has only a loopback interface, and enable the interface."""
    call("unshare", NEW_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        loopback = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, GET_FLAGS, loopback + bytes(24)), 16)[0]
        fcntl.ioctl(any_socket, SET_FLAGS, loopback + struct.pack("h", flags | INTERFACE_UP) + bytes(22))


def drop_rights(user: "int | None") -> None:
    """Switch to the user id, if one is given, drop all capabilities, and forbid gaining new ones."""
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if user is not None and os.getuid() != user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    call("prctl", AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    call("capset", struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24))
    call("prctl", DUMPABLE, 1, 0, 0, 0)  # changing the user made /proc/self inaccessible


def install_filter(seccomp: int, program: str) -> None:
    """Install a seccomp filter, which programs that this process starts inherit.

    ``seccomp`` is the number of the system call, ``program`` the filter in hexadecimal digits. Call while the process
    has one thread: the filter is not installed in others.
    """
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    instructions = ctypes.create_string_buffer(bytes.fromhex(program))
    description = struct.pack("@HP", len(program) // 16, ctypes.addressof(instructions))
    call("syscall", seccomp, SET_FILTER, SPEC_ALLOW, description)


# --- environment as other processes see it ---


def variable_in_memory(name: str) -> "int | None":
    """Return the address of a variable's value in the environment block that the kernel gave this process at its start.

    The file /proc/<pid>/environ shows the content of this block.
    """
    libc.getenv.restype = ctypes.c_void_p
    address: int | None = libc.getenv(name.encode())
    return address


def write_in_memory(address: int, value: str) -> None:
    """Overwrite the text at an address. Do nothing if the new text has another length."""
    text = value.encode()
    if len(text) == len(ctypes.string_at(address)):
        ctypes.memmove(address, text, len(text))


def probe(fence: "Fence") -> bool:
    """Return whether this machine allows an instance with such a fence. If not, write the reason to standard error."""
    ours, theirs = socket.socketpair()
    ours.send(b"x")
    report_reader, report = os.pipe()
    pid = fork(fence)
    if pid == 0:
        try:
            enter(fence, [theirs.fileno()], report)
            os._exit(0)
        except OSError as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0 and os.read(report_reader, 32) == b"0"
