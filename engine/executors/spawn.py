"""Starting the process of an instance: what it is given, and nothing else of the engine's.

Everything that knows how a process comes to be is here, so that a template to fork from can take its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from engine.executors.child import Child, OwnChild
from engine.isolation.limits import ENGINE_VARIABLE, INSTANCE_VARIABLE
from engine.model import Function
from engine.runtimes.interpreters import WORKERS
from engine.runtimes.protocol import RESULT_LIMIT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

REQUEST_LIMIT = 6 << 20  #: bytes, as the platform has it for synchronous calls (spec triggers_runtime 4.5)
#: MB of memory to thousandths of a processor, as the platform grants them.
_CPU = {
    128: 300, 256: 400, 512: 600, 768: 800, 1024: 1000, 1280: 1200, 1536: 1400, 1792: 1600,
    2048: 1800, 2560: 2200, 3072: 2600, 3584: 3000, 4096: 3400, 8192: 6600, 10240: 8200,
}  # fmt: skip


class Place(NamedTuple):
    """Where an instance lives."""

    instance_id: str
    marker: str  #: of the engine
    region: str
    code: Path
    tmp: Path  #: its own, made by ``spawn``
    memory: int  #: MB
    layers: tuple[Path, ...] = ()  #: of its dependencies
    runtime: Path = WORKERS  #: the programs that run functions
    own_network: bool = False  #: whether ports are its own, with nothing but loopback
    maps_port: bool = False  #: whether it listens on another port than it thinks


class Spawned(NamedTuple):
    child: Child
    socket: socket.socket  #: our end, non-blocking
    stdout: int  #: the reading end, non-blocking, like that of stderr
    stderr: int

    def destroy(self) -> None:
        """For one that nobody has taken charge of."""
        self.child.abandon()
        self.socket.close()
        os.close(self.stdout)
        os.close(self.stderr)


class Order(NamedTuple):
    """What is to run: the command lacks its last argument, the number of its socket's descriptor."""

    command: list[str]
    environment: dict[str, str]
    code: Path  #: its working folder
    layers: tuple[Path, ...] = ()


class Channels(NamedTuple):
    """The descriptors that the process is given."""

    socket: int
    stdout: int
    stderr: int


Launch = Callable[[Order, Channels], Child]  #: raises OSError


def launch(order: Order, channels: Channels) -> OwnChild:
    """As a new program, in a session of its own."""
    process = subprocess.Popen(
        [*order.command, str(channels.socket)],
        stdin=subprocess.DEVNULL,
        stdout=channels.stdout,
        stderr=channels.stderr,
        pass_fds=(channels.socket,),
        cwd=order.code,
        env=order.environment,
        start_new_session=True,
    )
    return OwnChild(process, asyncio.get_running_loop())


def spawn(order: Order, tmp: Path | None, launch: Launch = launch) -> Spawned:
    """Start it, with a temporary folder of its own if it needs one. Raises OSError; then nothing is left behind."""
    with ExitStack() as undo, ExitStack() as childs:
        if tmp is not None:
            tmp.mkdir(mode=0o700, parents=True)
            undo.callback(tmp.rmdir)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        childs.callback(theirs.close)
        ours.setblocking(False)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(undo, childs), _pipe(undo, childs)
        child = launch(order, Channels(theirs.fileno(), to_stdout, to_stderr))
        undo.pop_all()
        return Spawned(child, ours, stdout, stderr)


def _pipe(undo: ExitStack, childs: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    undo.callback(os.close, reading)
    childs.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing


def cpu(memory: int) -> int:
    """Thousandths of a processor that go with so many MB."""
    return next((share for size, share in _CPU.items() if size >= memory), memory)


def environment(function: Function, place: Place) -> dict[str, str]:
    """The whole environment of a child: defaults, the user's variables, then what must not be changed."""
    user = function.user_data | function.encrypted_user_data
    tmp, code = str(place.tmp), str(place.code)
    variables = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": tmp, "TMPDIR": tmp}
    variables |= {name: value for name, value in user.items() if _exportable(name, value)}
    variables |= {
        "RUNTIME_PROJECT_ID": function.project,
        "RUNTIME_PACKAGE": function.package,
        "RUNTIME_FUNC_NAME": function.name,
        "RUNTIME_FUNC_VERSION": function.version,
        "RUNTIME_HANDLER": function.handler,
        "RUNTIME_TIMEOUT": str(function.timeout),
        "RUNTIME_CPU": str(cpu(place.memory)),
        "RUNTIME_MEMORY": str(place.memory),
        "RUNTIME_USERDATA": json.dumps(user),
        "RUNTIME_INITIALIZER_HANDLER": function.initializer_handler,
        "RUNTIME_INITIALIZER_TIMEOUT": str(function.initializer_timeout),
        "RUNTIME_PRESTOP_HANDLER": function.pre_stop_handler,
        "PRE_STOP_HANDLER": function.pre_stop_handler,
        "PRE_STOP_TIMEOUT": str(function.pre_stop_limit),
        "RUNTIME_MAX_RESP_BODY_SIZE": str(RESULT_LIMIT),
        "RUNTIME_MAX_REQUEST_BODY_SIZE": str(REQUEST_LIMIT),
        "RUNTIME_ROOT": str(place.runtime),
        "RUNTIME_CODE_ROOT": code,
        "RUNTIME_LOG_DIR": tmp,
        "RUNTIME_REGION": place.region,
        ENGINE_VARIABLE: place.marker,
        INSTANCE_VARIABLE: place.instance_id,
    }
    return variables


def setup(function: Function, place: Place) -> dict[str, Any]:
    """What the worker is told before it loads user code."""
    return {
        "instance": place.instance_id,
        "code": str(place.code),
        "layers": [str(layer) for layer in place.layers],
        "handler": function.handler,
        "initializer": function.initializer_handler,
        "initializer_timeout": function.initializer_timeout,
        "pre_stop": function.pre_stop_handler,
        "concurrency": function.concurrent_num,
        "timeout": function.timeout,
        "memory": place.memory,
        "cpu": cpu(place.memory),
        "project": function.project,
        "package": function.package,
        "name": function.name,
        "version": function.version,
        "user_data": function.user_data | function.encrypted_user_data,
        "result_limit": RESULT_LIMIT,
        "maps_port": place.maps_port,
        "guarded": True,
    }


def _exportable(name: str, value: str) -> bool:
    """Some names that the API takes are no names for the kernel; context.getUserData knows them all the same."""
    try:
        return (
            bool(os.fsencode(name)) and "=" not in name and "\0" not in name + value and os.fsencode(value) is not None
        )
    except UnicodeEncodeError:
        return False
