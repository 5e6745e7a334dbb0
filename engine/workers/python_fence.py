"""Namespaces for an instance that is forked: process ids, mounts, temporary folder, network of its own.

A fence is {"tmp": MB or null, "network": bool, "user": id or null}. Without ``tmp`` only the network is the instance's own.
It is put up by a template that may do so, and the instance keeps no right to take it down.
Standard library only, Python 3.9 syntax.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
NO_SUID, NO_DEVICES, NO_EXEC, PRIVATE, RECURSIVE = 2, 4, 8, 1 << 18, 1 << 14
DUMPABLE, NO_NEW_PRIVILEGES, AMBIENT, AMBIENT_CLEAR_ALL = 4, 38, 47, 4  # of prctl
CAPABILITY_VERSION = 0x20080522
GET_FLAGS, SET_FLAGS, INTERFACE_UP = 0x8913, 0x8914, 1  # of network interfaces

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))


def is_whole(fence):
    """Whether it needs an init: the first process of a space of process ids, whose end is the end of them all."""
    return fence is not None and fence["tmp"] is not None


def fork(fence):
    """As os.fork; behind a whole fence the child is the first process of a new space of process ids."""
    if not is_whole(fence):
        return os.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        call("unshare", NEW_PIDS)
        pid = os.fork()
        return pid
    finally:
        if pid:
            call("setns", own, NEW_PIDS)  # else no second space could be made
        os.close(own)


def enter(fence, fds, saying):
    """In the forked process: put up the fence, if any, and go into its control group when the engine lets it.

    Behind a whole fence it forks once more: what returns is the child of an init, which says how that child ended.
    """
    if is_whole(fence):
        raise_mounts(fence)
    if fence is not None and fence["network"]:
        raise_network()
    if not go_in(fds[0]):
        os._exit(0)
    if is_whole(fence):
        # No handler, or user code could end its init by that signal; without one it has no effect there.
        handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
        first = os.fork()
        if first:
            become_init(first, fds, saying)
        signal.signal(signal.SIGINT, handler)
        drop_rights(fence["user"])


def become_init(first, fds, saying):
    """Reap whatever is left to it, until that child ends, and tell how it did. Never returns."""
    for fd in {0, 1, 2, *fds}:
        os.close(fd)
    pid = None
    while pid != first:
        pid, status = os.waitpid(-1, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    os.write(saying, str(code).encode())
    os._exit(0)


def go_in(fd):
    """Wait for the first byte on its socket, which brings the doors of its groups; False if the engine has closed it.

    A process that moves itself alone need not wait for all others of the machine to stand still, as when another moves
    it (10 to 20 ms with version 1).
    """
    with socket.socket(fileno=os.dup(fd)) as own:
        data, doors, _, _ = socket.recv_fds(own, 1, 4)
    for door in doors:
        os.write(door, b"0")
        os.close(door)
    return bool(data)


def raise_mounts(fence):
    call("unshare", NEW_MOUNTS | NEW_IPC)
    call("mount", None, b"/", None, PRIVATE | RECURSIVE, None)
    call("mount", b"proc", b"/proc", b"proc", NO_SUID | NO_DEVICES | NO_EXEC, None)
    for folder in (b"/tmp", b"/dev/shm"):
        call("mount", b"tmpfs", folder, b"tmpfs", NO_SUID | NO_DEVICES, b"size=%dm,mode=1777" % fence["tmp"])


def raise_network():
    """A network of its own with nothing in it but loopback, which is up."""
    user, group = os.geteuid(), os.getegid()
    try:
        call("unshare", NEW_NETWORK)
    except PermissionError:  # then as the owner of a user namespace
        call("unshare", NEW_USER | NEW_NETWORK)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (user, user)),
            ("gid_map", "%d %d 1" % (group, group)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, GET_FLAGS, name + bytes(24)), 16)[0]
        fcntl.ioctl(any_socket, SET_FLAGS, name + struct.pack("h", flags | INTERFACE_UP) + bytes(22))


def drop_rights(user):
    """Become that user, if any, and keep no capability, nor a way to one."""
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if user is not None and os.getuid() != user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    call("prctl", AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    call("capset", struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24))
    call("prctl", DUMPABLE, 1, 0, 0, 0)  # the change of user took /proc/self away


# --- what others see of its environment ---


def variable_in_memory(name):
    """Where the value of a variable lies that this process was started with: /proc/<pid>/environ shows what is there."""
    libc.getenv.restype = ctypes.c_void_p
    return libc.getenv(name.encode())


def write_in_memory(address, value):
    """Over a value of the same length."""
    text = value.encode()
    if len(text) == len(ctypes.string_at(address)):
        ctypes.memmove(address, text, len(text))


def probe(fence):
    """Whether an instance can have such a fence; what hinders goes to standard error."""
    ours, theirs = socket.socketpair()
    ours.send(b"x")
    said, saying = os.pipe()
    pid = fork(fence)
    if pid == 0:
        try:
            enter(fence, [theirs.fileno()], saying)
            os._exit(0)
        except OSError as error:
            os.write(2, ("%s\n" % error).encode())
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0 and (not is_whole(fence) or os.read(said, 32) == b"0")
