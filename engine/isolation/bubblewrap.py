"""Bubblewrap sandbox: shows a function only the parts of the file system that it needs, read-only, in own namespaces.

A template (``workers/python_template.py``) runs inside the sandbox. The template puts each instance that it forks in a
pid namespace with a temporary folder, optionally also in a network namespace. If the engine runs as root, instances run
as another user of the host, by project. Otherwise they run as the engine's own user, mapped to another user id.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.isolation.folders import HostFolder
from engine.isolation.limits import is_root
from engine.isolation.network import loopback_resolver
from engine.runtimes.interpreters import PLATFORM, WORKERS, own_interpreter

USER = 1003  #: user and group id of functions, as on FunctionGraph
CODE, LAYERS = Path("/opt/function/code"), Path("/opt/function/layers")
TMP, RUNTIME = Path("/tmp"), Path("/home/snuser/runtime")
API = Path("/home/snuser/api.sock")  #: socket of the API for functions
_FOLDER = "sandbox"  #: below the folder for temporary files
_TEMPLATE = RUNTIME / "python_template.py"
_PROBE_TIMEOUT = 20.0  #: seconds
_BACKLOG = 2048  #: connections

_SPACES = ("pid", "ipc", "uts", "cgroup-try")
#: Capabilities that the template needs to create namespaces. Instances drop all of them.
_CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SETUID", "SETGID", "KILL")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    **{f"/dev/std{name}": f"/proc/self/fd/{fd}" for fd, name in enumerate(("in", "out", "err"))},
}
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Entries of /etc that programs read and that contain no secrets.
_CONFIGURATION = (
    "alternatives", "ca-certificates", "crypto-policies", "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "pki/tls", "pki/ca-trust", "protocols", "resolv.conf",
    "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip


#: Folders that instances have of their own.
_OWN = (TMP, Path("/var/tmp"), Path("/proc"), Path("/dev"), CODE, LAYERS, RUNTIME)


class Bubblewrap(Struct, frozen=True, kw_only=True):
    program: str
    folder: Path  #: for generated files that sandboxes mount
    hidden: tuple[Path, ...] = ()  #: folders that functions must not see as parts of other folders
    users: range | None  #: user ids to which the processes of instances switch; None if the engine is not root's

    def name(self, user: int = USER) -> None:
        """Create the files in ``folder`` that name a user id in sandboxes. Blocks.

        Raises OSError if they cannot be created.
        """
        folder = self.folder / str(user)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nsnuser:x:{user}:{user}::{TMP}:/bin/sh\n")
        (folder / "group").write_text(f"root:x:0:\nsnuser:x:{user}:\n")
        if servers := loopback_resolver():
            (folder / "resolv.conf").write_text(servers)
        for path in (self.folder, folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)  # independent of the umask

    def command(
        self,
        python: str,
        code: Path,
        layers: Sequence[Path],
        programs: Iterable[str] = (),
        devices: Sequence[str] = (),
        folders: Iterable[HostFolder] = (),
        links: Mapping[str, str] = {},
        *,
        user: int | None = None,
        own_network: bool = False,
    ) -> list[str]:
        """Return the command that starts a template in a sandbox, without the template's arguments.

        ``programs`` and ``devices`` are further executables and device files that the sandbox must contain, ``folders``
        those of the host, and ``links`` symbolic links with their targets. ``user`` is the user id of its functions on
        the host, which has been named; None stands for ``USER``.
        """
        # The template runs as pid 1, which bubblewrap waits for. Bubblewrap's own init would remain a host zombie.
        parts = [self.program, "--die-with-parent", "--as-pid-1", *(f"--unshare-{space}" for space in _SPACES)]
        if self.users is None:
            parts += ["--unshare-user", "--uid", str(USER), "--gid", str(USER)]
        parts += ["--cap-drop", "ALL"]
        for name in _CAPABILITIES:
            parts += ["--cap-add", "CAP_" + name]
        mounts = [*_system(), *self._configuration(str(user or USER), own_network), *_devices(devices)]
        mounts += [("--ro-bind", str(path), str(path)) for path in sorted(_installations([python, *programs]))]
        mounted = [mount[1] for mount in mounts if mount[0].startswith("--ro-bind")]
        mounts += [("--tmpfs", str(folder)) for folder in self.hidden if any(map(folder.is_relative_to, mounted))]
        mounts += [("--ro-bind", str(WORKERS), str(RUNTIME)), ("--ro-bind", str(code), str(CODE))]
        mounts += [("--ro-bind", str(layer), str(LAYERS / str(n))) for n, layer in enumerate(layers)]
        mounts += [("--ro-bind-try", str(self.folder / API.name), str(API))]
        mounts += [("--ro-bind" if one.mode == "ro" else "--bind", one.source, one.path) for one in folders]
        mounts += [("--symlink", target, path) for path, target in links.items()]
        mounts += [("--proc", "/proc"), ("--dir", str(TMP)), ("--symlink", str(TMP), "/var/tmp")]
        arguments = [argument for mount in (*_parents(mounts), *mounts, ("--remount-ro", "/")) for argument in mount]
        return [*parts, *arguments, "--", python, "-I", str(_TEMPLATE)]

    def _configuration(self, user: str, own_network: bool) -> Iterator[tuple[str, ...]]:
        files = ["passwd", "group"]
        if own_network and (self.folder / user / "resolv.conf").exists():
            files.append("resolv.conf")
        java = sorted(path.name for path in Path("/etc").glob("java-*"))  # where Debian has java.security
        for name in (*_CONFIGURATION, *java):
            if name not in files:
                yield "--ro-bind-try", f"/etc/{name}", f"/etc/{name}"
        for name in files:
            yield "--ro-bind", str(self.folder / user / name), f"/etc/{name}"


def unseen(programs: Mapping[str, str]) -> str:
    """Return why a sandbox does not show one of the programs, which settings name, to functions; else an empty text."""
    for setting, program in programs.items():
        for folder in filter(Path(program).resolve().is_relative_to, _OWN if program else ()):
            where = f"{setting} = {program!r} is below {folder}, where functions in the sandbox have files of their own"
            return f'{where}: move it, for instance below /usr/local, or set executor.isolation = "process"'
    return ""


def find_bubblewrap(tmp: Path, fence: dict[str, Any], users: range) -> Bubblewrap | str:
    """Return a sandbox that was tried and works on this machine, or the reason why there is none.

    The folder that contains ``tmp`` (the data directory) is hidden from functions. If the engine is root's but has no
    right to ``users``, as in some containers, all functions have ``USER``. Blocks: call in a thread.
    """
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed"
    tmp, problem = tmp.absolute(), ""
    for usable in (users, range(USER, USER + 1)) if is_root() else (None,):
        bubblewrap = Bubblewrap(program=program, folder=tmp / _FOLDER, hidden=(tmp.parent,), users=usable)
        try:
            bubblewrap.name()
            command = bubblewrap.command(own_interpreter().path, WORKERS, ())
        except OSError as error:
            return f"bubblewrap cannot be started: {error}"
        problem = probe(command, {**fence, "user": usable and usable[-1]})
        if not problem:
            return bubblewrap
    return f"bubblewrap {problem}"


def api_sockets(tmp: Path) -> list[socket.socket]:
    """Return a socket that listens where sandboxes have the API for functions; none if there are no sandboxes."""
    folder = tmp / _FOLDER
    if not folder.is_dir():
        return []
    listening, descriptor = socket.socket(socket.AF_UNIX), os.open(folder, os.O_RDONLY)
    try:  # by a short path, because that of a socket has at most 107 bytes
        listening.bind(f"/proc/self/fd/{descriptor}/{API.name}")
    finally:
        os.close(descriptor)
    (folder / API.name).chmod(0o666)  # for the users of projects; no one else reaches the folder
    listening.listen(_BACKLOG)
    return [listening]


def probe(command: Sequence[str], fence: dict[str, Any]) -> str:
    """Return why the template that ``command`` starts cannot put an instance into a fence; empty: it can. Blocks."""
    command = [*command, "--probe", json.dumps(fence)]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        return f"cannot be started: {error}"
    output = " ".join(tried.stderr.decode(errors="replace").split())[-300:]
    return f"lacks permissions that it needs on this machine: {output}" if tried.returncode else ""


def _system() -> Iterator[tuple[str, ...]]:
    yield "--ro-bind", "/usr", "/usr"
    for path in _SYSTEM:
        if os.path.islink(path):
            yield "--symlink", os.readlink(path), path
        elif os.path.isdir(path):
            yield "--ro-bind", path, path
    yield "--ro-bind-try", PLATFORM, PLATFORM


def _devices(further: Sequence[str]) -> Iterator[tuple[str, ...]]:
    # Not --dev: bubblewrap then creates a second user namespace, in which instances cannot get namespaces of their own.
    yield "--dir", "/dev/shm"
    for path in (*(f"/dev/{name}" for name in _DEVICES), *further):
        yield "--dev-bind", path, path
    for path, target in _LINKS.items():
        yield "--symlink", target, path


def _parents(mounts: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the bubblewrap options that create the parent folders of mounts.

    Without these options bubblewrap would create the folders, too, but readable only by root.
    """
    above = {parent for mount in mounts for parent in Path(mount[-1]).parents if parent != Path("/")}
    for folder in sorted(above):
        yield "--perms", "0755", "--dir", str(folder)


def _installations(programs: Iterable[str]) -> set[Path]:
    """Return the paths to mount for programs: each with its libraries, and pyvenv.cfg of a virtual environment.

    Programs of the system are there already, also below ``/bin`` if that is a link. The folder in which a program is
    located is not mounted as a whole, because it may contain private files, such as a user's home for ``~/bin/node``.
    """
    mounts = set()
    for program in programs:
        path = Path(os.path.abspath(program))
        for file in {path, path.resolve()}:
            if not any(map(file.is_relative_to, ("/usr", *_SYSTEM))):
                home = file.parent.parent
                parts = (file, home / "lib", home / "lib64", home / "pyvenv.cfg")
                mounts |= {part for part in parts if part.exists()}
    return mounts
