"""Start of an instance's process, which inherits only the descriptors and the environment that it needs.

The parameter ``launch`` of ``spawn`` selects how the process is created: as a new program, or as a fork of a template.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from engine.auth.agencies import Agency
from engine.executors.local.child import ChildProcess, OwnChild
from engine.isolation.folders import HostFolder
from engine.isolation.gpus import Gpus
from engine.isolation.limits import ENGINE_VARIABLE, INSTANCE_VARIABLE
from engine.model import Function
from engine.model.limits import cpu_of
from engine.runtimes.catalog import Family, family_of
from engine.runtimes.interpreters import WORKERS
from engine.runtimes.protocol import RESULT_LIMIT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

REQUEST_LIMIT = 6 << 20  #: bytes; FunctionGraph's limit of a synchronous request

KEYS = ("access_key", "secret_key", "security_token")  #: of an agency, as SETUP has them

#: Variables by which a function names another engine, or credentials of its own. Such a function keeps its own.
OWN_ACCESS = frozenset({"FUNCTIOND_URL", "FUNCTIOND_TOKEN", "FUNCTIOND_ACCESS_KEY"})


class FunctionAccess(NamedTuple):
    """Access of functions to the API of the engine."""

    url: str  #: address of the API, as functions reach it
    token_of: Callable[[Function, str], str]  #: returns the token of an instance of a function, by the instance's id

    def of(self, function: Function, instance: str) -> dict[str, str]:
        """Return what SETUP tells an instance. Outside a sandbox, no path of a socket is needed."""
        token = self.token_of(function, instance)
        return {"url": self.url, "token": token, "project": function.project, "socket": ""}


class InstanceSpec(NamedTuple):
    """Identity, folders and memory limit of one instance, from which its environment and configuration are made."""

    instance_id: str
    marker: str  #: the engine's
    region: str
    code: Path
    tmp: Path  #: temporary folder, created by ``spawn``
    memory: int  #: MiB
    project: str = ""
    layers: tuple[Path, ...] = ()  #: folders of its dependencies
    runtime: Path = WORKERS  #: folder of the worker programs
    maps_port: bool = False  #: its server's port is mapped to a free one
    gpus: Gpus = Gpus()
    folders: tuple[HostFolder, ...] = ()  #: of the host, which it sees also in a sandbox
    links: Mapping[str, str] = {}  #: to interpreters, see ``Interpreters.platform_links``
    access: dict[str, str] | None = None  #: to the API of the engine, see ``FunctionAccess.of``
    agency: Agency | None = None  #: has keys for other services


class Spawned(NamedTuple):
    """Started process, and the engine's ends of the socket and of the two output pipes."""

    child: ChildProcess
    socket: socket.socket  #: the engine's end, non-blocking
    stdout: int  #: reading end, non-blocking, like that of stderr
    stderr: int

    def destroy(self) -> None:
        """Kill the process and close the socket and the pipes.

        Call only if no ``Instance`` was created for the process.
        """
        self.child.abandon()
        self.socket.close()
        os.close(self.stdout)
        os.close(self.stderr)


class ProcessSpec(NamedTuple):
    """Program to run. The number of the socket's descriptor is appended to ``command`` when the program starts."""

    command: list[str]
    environment: dict[str, str]
    code: Path  #: working folder
    layers: tuple[Path, ...] = ()


class Channels(NamedTuple):
    """Descriptors that the process inherits: its ends of the socket and of the two output pipes."""

    socket: int
    stdout: int
    stderr: int


#: Umask of functions: the one of this process before `functiond serve` sets its own.
UMASK = int(Path("/proc/self/status").read_text().partition("Umask:")[2].split()[0], 8)

Launch = Callable[[ProcessSpec, Channels], ChildProcess]  #: raises OSError


def launch(
    process_spec: ProcessSpec,
    channels: Channels,
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
) -> OwnChild:
    """Start a new program as the leader of a new session. Raises OSError if the program cannot be started."""
    process = popen(
        [*process_spec.command, str(channels.socket)],
        stdin=subprocess.DEVNULL,
        stdout=channels.stdout,
        stderr=channels.stderr,
        pass_fds=(channels.socket,),
        cwd=process_spec.code,
        env=process_spec.environment,
        start_new_session=True,
        umask=UMASK,
    )
    return OwnChild(process, asyncio.get_running_loop())


def spawn(process_spec: ProcessSpec, tmp: Path | None, launch: Launch = launch) -> Spawned:
    """Start a process connected by a socket and two pipes. If ``tmp`` is a path, create this temporary folder before.

    Raises OSError if the process cannot be started, after removing the folder and the channels.
    """
    with ExitStack() as undo, ExitStack() as childs:
        if tmp is not None:
            tmp.mkdir(mode=0o700, parents=True)
            undo.callback(tmp.rmdir)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        childs.callback(theirs.close)
        ours.setblocking(False)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(undo, childs), _pipe(undo, childs)
        child = launch(process_spec, Channels(theirs.fileno(), to_stdout, to_stderr))
        undo.pop_all()
        return Spawned(child, ours, stdout, stderr)


def _pipe(undo: ExitStack, childs: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    undo.callback(os.close, reading)
    childs.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing


def environment(function: Function, spec: InstanceSpec) -> dict[str, str]:
    """Return the environment of an instance: defaults, the user's variables, then those that users cannot replace."""
    user = function.user_data | function.encrypted_user_data
    tmp, code = str(spec.tmp), str(spec.code)
    variables = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": tmp, "TMPDIR": tmp}
    variables |= {name: value for name, value in user.items() if _exportable(name, value)}
    if spec.access is not None and not OWN_ACCESS & user.keys():
        variables |= {f"FUNCTIOND_{name.upper()}": spec.access[name] for name in ("url", "project", "token")}
    if spec.gpus.visible:
        variables["CUDA_VISIBLE_DEVICES"] = spec.gpus.visible
    return variables | {
        "RUNTIME_PROJECT_ID": function.project,
        "RUNTIME_PACKAGE": function.package,
        "RUNTIME_FUNC_NAME": function.name,
        "RUNTIME_FUNC_VERSION": function.version,
        "RUNTIME_HANDLER": function.handler,
        "RUNTIME_TIMEOUT": str(function.timeout),
        "RUNTIME_CPU": str(cpu_of(spec.memory)),
        "RUNTIME_MEMORY": str(spec.memory),
        "RUNTIME_USERDATA": json.dumps(user),
        "RUNTIME_INITIALIZER_HANDLER": function.initializer_handler,
        "RUNTIME_INITIALIZER_TIMEOUT": str(function.initializer_timeout),
        "RUNTIME_PRESTOP_HANDLER": function.pre_stop_handler,
        "PRE_STOP_HANDLER": function.pre_stop_handler,
        "PRE_STOP_TIMEOUT": str(function.pre_stop_limit),
        "RUNTIME_MAX_RESP_BODY_SIZE": str(RESULT_LIMIT),
        "RUNTIME_MAX_REQUEST_BODY_SIZE": str(REQUEST_LIMIT),
        "RUNTIME_ROOT": str(spec.runtime),
        "RUNTIME_CODE_ROOT": code,
        "RUNTIME_LOG_DIR": tmp,
        "RUNTIME_REGION": spec.region,
        ENGINE_VARIABLE: spec.marker,
        INSTANCE_VARIABLE: spec.instance_id,
    }


def setup(function: Function, spec: InstanceSpec) -> dict[str, Any]:
    """Return the content of the SETUP frame: the configuration that a worker receives before it loads user code."""
    return {
        "instance": spec.instance_id,
        "code": str(spec.code),
        "layers": [str(layer) for layer in spec.layers],
        "handler": function.handler,
        "initializer": function.initializer_handler,
        "initializer_timeout": function.initializer_timeout,
        "pre_stop": function.pre_stop_handler,
        "concurrency": function.concurrent_num,
        "timeout": function.timeout,
        "memory": spec.memory,
        "cpu": cpu_of(spec.memory),
        "project": function.project,
        "package": function.package,
        "name": function.name,
        "version": function.version,
        "user_data": function.user_data | function.encrypted_user_data,
        "result_limit": RESULT_LIMIT,
        "maps_port": spec.maps_port,
        "access": spec.access,
        "keys": _keys(function, spec.agency),
        "guarded": True,
    }


def _keys(function: Function, agency: Agency | None) -> dict[str, str]:
    """Return the keys for a worker; for the server of an HTTP function only if its configuration says so."""
    hidden = family_of(function.runtime) is Family.HTTP and not function.details.get("enable_auth_in_header")
    return {} if agency is None or hidden else {name: getattr(agency, name) for name in KEYS}


def _exportable(name: str, value: str) -> bool:
    """Return whether the kernel accepts a user's variable in the environment of a process.

    The API accepts some names that the kernel does not. User code reads such variables by ``context.getUserData``.
    """
    try:
        return (
            bool(os.fsencode(name)) and "=" not in name and "\0" not in name + value and os.fsencode(value) is not None
        )
    except UnicodeEncodeError:
        return False
