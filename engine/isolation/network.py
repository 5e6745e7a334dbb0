"""Network namespaces of projects, each with a way out of the host and without the host's loopback.

pasta (package passt) makes a namespace, and repeats its connections as a process of the host without rights. A shell
keeps the namespace open until its input ends, with the engine at the latest; pasta then exits, too. Sandboxes join by
``nsenter``. Root gives pasta an unprivileged user, because pasta would give up root's rights itself, and then fail. The
device /dev/net/tun is often root's alone, so that pasta gets another node of it, in a mount namespace of its own.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

_PROGRAMS = {"pasta": "passt", "nsenter": "util-linux", "ip": "iproute2"}  #: with the Debian package of each
RESOLVER = "198.18.0.53"  #: nameserver in a namespace for one on the host's loopback; of a block for tests (RFC 2544)
_TIMEOUT = 2.0  #: seconds until the namespace is there
_CREDENTIALS = struct.Struct("iii")  #: pid, user and group of the process that sent a message
_OPTIONS = ("--foreground", "--quiet", "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-U", "none")
_TUN = (
    "mkdir -p /dev/net && mount -t tmpfs -o mode=755,size=4k tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200"
    ' && exec setpriv --reuid "$0" --regid "$0" --clear-groups "$@"'
)
#: Addresses at which clouds give credentials to every process of a machine. Policies, and not routes, block them: a
#: socket that is bound to a device passes routes, and the host may have more specific ones, which pasta copies.
_CLOUDS = ("169.254.0.0/16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe")
_KEEP = (
    f"for address in {' '.join(_CLOUDS)}; do case $address in *:*) [ -e /proc/net/if_inet6 ] || continue; esac;"
    " ip xfrm policy add dst $address dir out action block || exit; done; echo && exec cat"
)


class Network:
    """Network namespace of one project. ``enter`` is the beginning of a command whose program runs in it."""

    def __init__(self, process: subprocess.Popen[bytes], keeper: socket.socket, namespaces: Mapping[str, int]) -> None:
        self.process = process  #: pasta
        self._keeper, self._namespaces = keeper, namespaces

    @property
    def enter(self) -> list[str]:
        paths = {name: f"/proc/{os.getpid()}/fd/{fd}" for name, fd in self._namespaces.items()}
        joined = [f"--{name}={path}" for name, path in paths.items()]
        return ["nsenter", *joined, *(["--preserve-credentials"] if "user" in paths else []), "--"]

    def close(self) -> None:
        """Let the namespace go when the last process in it has exited."""
        self._keeper.close()
        for fd in self._namespaces.values():
            os.close(fd)


def open_network(ports: Iterable[str], user: int | None, environment: Mapping[str, str]) -> Network:
    """Return a new namespace. Blocks for about 20 ms.

    ``ports`` are those of its loopback that lead to the host's, as ``port:port of the host``. ``user`` is the user id
    of pasta; None if the engine is not root's. Raises OSError if no namespace can be had.
    """
    command = ["pasta", *_OPTIONS, "-T", ",".join(ports) or "none"]
    if loopback_resolver():
        command += ["--dns-forward", RESOLVER]
    command += ["--", "sh", "-c", _KEEP]
    if user is not None:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _TUN, str(user), *command]
    with ExitStack() as undo, tempfile.TemporaryFile() as errors:
        keeper, theirs = socket.socketpair()
        undo.callback(keeper.close)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        undo.callback(process.wait)
        undo.callback(_kill_group, process.pid)
        data = b""
        if _is_readable(keeper, process):
            data, ancillary, _, _ = keeper.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data:
            said = " ".join(os.pread(errors.fileno(), 500, 0).decode(errors="replace").split())
            raise OSError(errno.EAGAIN, f"pasta makes no namespace: {said or f'no sign within {_TIMEOUT:g} s'}")
        pid, _, _ = _CREDENTIALS.unpack(ancillary[0][2])
        namespaces = dict[str, int]()
        for name in ("net",) if user is not None else ("user", "net"):
            namespaces[name] = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, namespaces[name])
        undo.pop_all()
        return Network(process, keeper, namespaces)


def missing_program(path: str) -> str:
    """Return which program for namespaces is in no folder of ``path``, with its package; empty if all are there."""
    missing = (name for name in _PROGRAMS if shutil.which(name, path=path) is None)
    return next((f"{name} is not installed (package {_PROGRAMS[name]})" for name in missing), "")


def loopback_resolver() -> str:
    """Return the text of a resolv.conf for namespaces if the host's names a server on loopback, otherwise nothing."""
    with suppress(OSError):
        lines = Path("/etc/resolv.conf").read_text().splitlines()
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
        if any(ipaddress.ip_address(server.partition("%")[0]).is_loopback for server in servers):
            others = [line for line in lines if not line.startswith("nameserver ")]
            return "\n".join([*others, f"nameserver {RESOLVER}", ""])
    return ""


def _is_readable(keeper: socket.socket, process: subprocess.Popen[bytes]) -> bool:
    """Wait for a message, for the exit of pasta, whose child then waits for ever, or for ``_TIMEOUT``."""
    pidfd = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(keeper, select.POLLIN)
        waiting.register(pidfd, select.POLLIN)
        return (keeper.fileno(), select.POLLIN) in waiting.poll(_TIMEOUT * 1000)
    finally:
        os.close(pidfd)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
