"""A sandbox by bubblewrap: only what a function needs of the file system, read-only, in namespaces of its own.

What runs inside is a template (``workers/python_template.py``), which puts a fence around each instance that it forks:
a temporary folder, a space of process ids and maybe a network of its own. Where the engine is root's, instances run
as another user of the host; else that user is the engine's own, by another name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.isolation.limits import is_root
from engine.runtimes.interpreters import WORKERS, own_interpreter

USER = 1003  #: as the platform has it (spec triggers_runtime 4.2); the group likewise
CODE, LAYERS = Path("/opt/function/code"), Path("/opt/function/layers")
TMP, RUNTIME = Path("/tmp"), Path("/home/snuser/runtime")
_TEMPLATE = RUNTIME / "python_template.py"
_PATIENCE = 20.0  #: seconds that the probe may take

_SPACES = ("pid", "ipc", "uts", "cgroup-try")
#: What the template needs to put up fences. Instances keep none of it.
_CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SETUID", "SETGID", "KILL")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    **{f"/dev/std{name}": f"/proc/self/fd/{fd}" for fd, name in enumerate(("in", "out", "err"))},
}
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Of the configuration, what programs look for and no secret is in.
_CONFIGURATION = (
    "alternatives", "ca-certificates", "crypto-policies", "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "pki/tls", "pki/ca-trust", "protocols", "resolv.conf",
    "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip


class Bubblewrap(Struct, frozen=True, kw_only=True):
    program: str
    folder: Path  #: for what is made for sandboxes
    hidden: tuple[Path, ...] = ()  #: folders that no function may see
    privileged: bool  #: whether the engine is root's

    @property
    def user(self) -> int | None:
        """Whom instances have to become; None if they are that user from the start."""
        return USER if self.privileged else None

    def prepare(self) -> None:
        """Blocks. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nsnuser:x:{USER}:{USER}::{TMP}:/bin/sh\n")
        (self.folder / "group").write_text(f"root:x:0:\nsnuser:x:{USER}:\n")
        for name in ("passwd", "group"):
            (self.folder / name).chmod(0o644)  # whatever the umask

    def command(self, python: str, code: Path, layers: Sequence[Path], programs: Iterable[str] = ()) -> list[str]:
        """Starts a template inside; ``programs`` are other executables that have to be there. Its arguments follow."""
        # As the first process, which bubblewrap waits for; an init of its own it leaves as a zombie to the host.
        parts = [self.program, "--die-with-parent", "--as-pid-1", *(f"--unshare-{space}" for space in _SPACES)]
        if not self.privileged:
            parts += ["--unshare-user", "--uid", str(USER), "--gid", str(USER)]
        parts += ["--cap-drop", "ALL"]
        for name in _CAPABILITIES:
            parts += ["--cap-add", "CAP_" + name]
        mounts = [*_system(), *self._configuration(), *_devices()]
        mounts += [("--ro-bind", str(path), str(path)) for path in sorted(_installations([python, *programs]))]
        mounts += [("--tmpfs", str(folder)) for folder in self._in_view(mounts)]
        mounts += [("--ro-bind", str(WORKERS), str(RUNTIME)), ("--ro-bind", str(code), str(CODE))]
        mounts += [("--ro-bind", str(layer), str(LAYERS / str(n))) for n, layer in enumerate(layers)]
        mounts += [("--proc", "/proc"), ("--dir", str(TMP)), ("--symlink", str(TMP), "/var/tmp")]
        words = [word for mount in (*_parents(mounts), *mounts, ("--remount-ro", "/")) for word in mount]
        return [*parts, *words, "--", python, "-I", str(_TEMPLATE)]

    def _configuration(self) -> Iterator[tuple[str, ...]]:
        for name in _CONFIGURATION:
            yield "--ro-bind-try", f"/etc/{name}", f"/etc/{name}"
        for name in ("passwd", "group"):
            yield "--ro-bind", str(self.folder / name), f"/etc/{name}"

    def _in_view(self, mounts: Iterable[tuple[str, ...]]) -> Iterator[Path]:
        """Those of the hidden folders that lie in something that is mounted."""
        shown = [Path(mount[1]) for mount in mounts if mount[0].startswith("--ro-bind")]
        for folder in self.hidden:
            if any(folder.is_relative_to(one) for one in shown):
                yield folder


def find_bubblewrap(tmp: Path, fence: dict[str, Any]) -> Bubblewrap | str:
    """A sandbox that works here, or why there is none. ``tmp`` is of the engine's data. Blocks: for a thread."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed"
    tmp = tmp.absolute()
    found = Bubblewrap(program=program, folder=tmp / "sandbox", hidden=(tmp.parent,), privileged=is_root())
    try:
        found.prepare()
        command = [
            *found.command(own_interpreter().path, WORKERS, ()),
            "--probe",
            json.dumps({**fence, "user": found.user}),
        ]
        tried = subprocess.run(command, capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not start: {error}"
    if tried.returncode:
        said = " ".join(tried.stderr.decode(errors="replace").split())[-300:]
        return f"bubblewrap has not the right to do its work here: {said}"
    return found


def _system() -> Iterator[tuple[str, ...]]:
    yield "--ro-bind", "/usr", "/usr"
    for path in _SYSTEM:
        if os.path.islink(path):
            yield "--symlink", os.readlink(path), path
        elif os.path.isdir(path):
            yield "--ro-bind", path, path
    yield "--ro-bind-try", "/opt/function/runtime", "/opt/function/runtime"


def _devices() -> Iterator[tuple[str, ...]]:
    # Not --dev: for its terminals bubblewrap makes a second user namespace, in which fences could not be put up.
    yield "--dir", "/dev/shm"
    for name in _DEVICES:
        yield "--dev-bind", f"/dev/{name}", f"/dev/{name}"
    for path, target in _LINKS.items():
        yield "--symlink", target, path


def _parents(mounts: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Folders above what is mounted. Bubblewrap would make them, too, but for root alone."""
    above = {parent for mount in mounts for parent in Path(mount[-1]).parents if parent != Path("/")}
    for folder in sorted(above):
        yield "--perms", "0755", "--dir", str(folder)


def _installations(programs: Iterable[str]) -> set[Path]:
    """What programs outside /usr need: themselves, their libraries, and the mark of a virtual environment.

    Not the folder that all of it is in: that of ``~/bin/node`` is somebody's home.
    """
    found = set()
    for program in programs:
        path = Path(os.path.abspath(program))
        for file in {path, path.resolve()}:
            if not file.is_relative_to("/usr"):
                home = file.parent.parent
                parts = (file, home / "lib", home / "lib64", home / "pyvenv.cfg")
                found |= {part for part in parts if part.exists()}
    return found
