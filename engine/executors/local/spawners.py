"""Spawners of instances' processes. A process is forked by a template if possible, otherwise started as a new program.

``HostSpawner`` starts processes on the host, with one template per interpreter. ``SandboxSpawner`` starts them in
bubblewrap sandboxes, with one template per function, version and revision inside its sandbox.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from anyio import to_thread
from msgspec import Struct

from engine.errors import SettingsError
from engine.executors.local.spawn import PATH, Channels, InstanceSpec, ProcessSpec, Spawned, spawn
from engine.executors.local.template import ForkedChild, Template
from engine.isolation.bubblewrap import CODE, LAYERS, RUNTIME, TMP, Bubblewrap, find_bubblewrap, probe
from engine.isolation.limits import ENGINE_VARIABLE, INSTANCE_VARIABLE
from engine.runtimes.interpreters import WORKERS, own_interpreter

log = structlog.get_logger("functiond")

SandboxKey = tuple[int, str, int]  #: function_id, version, revision; their instances share a sandbox

_WORKER = WORKERS / "python_worker.py"
TEMPLATE = WORKERS / "python_template.py"
_OWN_NETWORK: dict[str, Any] = {"tmp": None, "network": True, "user": None}  #: fence without a sandbox
_LINGER = 60.0  #: seconds that a sandbox stays after its last instance
_PLACEHOLDER = "0" * 32  #: overwritten by the instance's id, which has the same length
#: Variables read only when a program starts: a fork cannot apply them.
_AT_START = ("LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
#: Variables that make a program run user code at its start, before its worker waits for the limits.
_RUNS_CODE = ("LD_", "GCONV_PATH", "OPENSSL_", "NODE_OPTIONS")


class Spawner(Protocol):
    """Interface by which the processes of instances are started."""

    @property
    def name(self) -> str:
        """Name of the mechanism that separates functions from the host, such as ``bubblewrap``."""
        ...

    @property
    def own_network(self) -> bool:
        """True if each instance of an HTTP function has a network of its own."""
        ...

    @property
    def tmp(self) -> int:
        """MiB of memory for the temporary files of an instance. 0 means that the files are on a disk."""
        ...

    def seen_inside(self, spec: InstanceSpec) -> InstanceSpec:
        """Return a copy of ``spec`` with the paths as the function sees them, possibly inside a sandbox."""
        ...

    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        """Start a process. Raises OSError if the process cannot be started.

        The paths in ``process`` are those that the function sees, except in ``process.command``.
        """
        ...

    def ended(self, key: SandboxKey) -> None:
        """Register that an instance in the sandbox with this key has ended.

        Call once for each ``start``, after the exit.
        """
        ...

    async def close(self) -> None: ...


class HostSpawner:
    """Spawner of processes on the host, without a sandbox.

    With ``forking``, processes may be forked by templates. The template of an interpreter is started at the second use
    of the interpreter, or earlier if a process can only be started through a template.
    """

    name = "process"
    tmp = 0

    def __init__(self, marker: str, *, forking: bool, own_network: bool = False) -> None:
        self.own_network = own_network
        self._marker, self._forking = marker, forking
        self._templates: dict[str, Template | None] = {}  #: by interpreter; None: the interpreter was used once
        self._closing: set[Template] = set()

    def seen_inside(self, spec: InstanceSpec) -> InstanceSpec:
        return spec

    def prepare(self, python: str) -> Template:
        """Return the template of an interpreter. Start it unless it runs; raises OSError if it cannot be started."""
        template = self._templates.get(python)
        if template is None or not template.alive:
            _keep_until_closed(template, self._closing)
            command = [python, "-I", str(TEMPLATE), "{fd}", "full"]
            template = Template(command, template_environment(self._marker), self._closing.discard)
            self._templates[python] = template
        return template

    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        own = own_interpreter().path
        fence = _OWN_NETWORK if spec.own_network else None
        if fence is not None or any(name.startswith(_RUNS_CODE) for name in process.environment):
            # The fork creates its namespaces, waits until the limits are in force, and then executes the program.
            return spawn(process, spec.tmp, partial(fork, self.prepare(own), process.command, fence))
        # Forks of a template get low descriptors. Node.js passes descriptors above 16 to the programs that it starts.
        python, argv = (process.command[0], None) if _is_python(process) else (own, process.command)
        if self._forking and (argv or _can_fork(process)):
            with suppress(OSError):  # then started by the engine instead
                template = self._second_use(python)
                if template is not None and template.ready.is_set():
                    return spawn(process, spec.tmp, partial(fork, template, argv, None))
        return spawn(process, spec.tmp)

    def _second_use(self, python: str) -> Template | None:
        """Return the template of an interpreter, but None at the first use of the interpreter."""
        if python in self._templates:
            return self.prepare(python)
        self._templates[python] = None
        return None

    def ended(self, key: SandboxKey) -> None:
        """Do nothing: there is no sandbox to close, and the templates run until ``close``."""

    async def close(self) -> None:
        await _close([*(template for template in self._templates.values() if template), *self._closing])


class SandboxSpawner:
    """Spawner of processes in bubblewrap sandboxes.

    A sandbox is closed ``linger`` seconds after its last instance has ended.
    """

    name = "bubblewrap"

    def __init__(
        self,
        bubblewrap: Bubblewrap,
        marker: str,
        *,
        fence: dict[str, Any],
        own_network: bool = False,
        linger: float = _LINGER,
    ) -> None:
        self.own_network = own_network or fence["network"]
        self._bubblewrap, self._marker, self._linger = bubblewrap, marker, linger
        self._fence = {**fence, "user": bubblewrap.user}
        self.tmp: int = fence["tmp"]
        self._templates: dict[SandboxKey, Template] = {}
        self._counts: dict[SandboxKey, int] = {}
        self._timers: dict[SandboxKey, asyncio.TimerHandle] = {}
        self._closing: set[Template] = set()

    def seen_inside(self, spec: InstanceSpec) -> InstanceSpec:
        layers = tuple(LAYERS / str(number) for number in range(len(spec.layers)))
        return spec._replace(code=CODE, tmp=TMP, layers=layers, runtime=RUNTIME)

    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        template = self._template(key, spec, process)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._counts[key] = self._counts.get(key, 0) + 1
        argv = None if _is_python(process) and _can_fork(process) else [_path_inside(part) for part in process.command]
        fence = {**self._fence, "network": self._fence["network"] or spec.own_network}
        try:
            return spawn(process, None, partial(fork, template, argv, fence))
        except BaseException:
            self.ended(key)
            raise

    def ended(self, key: SandboxKey) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
            self._timers[key] = asyncio.get_running_loop().call_later(self._linger, self._close_one, key)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await _close([*self._templates.values(), *self._closing])

    def _template(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Template:
        template = self._templates.get(key)
        if template is None or not template.alive:
            _keep_until_closed(template, self._closing)
            program = process.command[0]
            python = program if _is_python(process) else own_interpreter().path
            command = self._bubblewrap.command(python, spec.code, spec.layers, [program])
            environment = template_environment(self._marker)
            template = self._templates[key] = Template([*command, "{fd}"], environment, self._closing.discard)
        return template

    def _close_one(self, key: SandboxKey) -> None:
        del self._timers[key]
        template = self._templates.pop(key)
        _keep_until_closed(template, self._closing)
        template.close()


def fork(
    template: Template, argv: list[str] | None, fence: dict[str, Any] | None, process: ProcessSpec, channels: Channels
) -> ForkedChild:
    """Fork a process from a template.

    With ``argv``, the process executes this program; without ``argv``, it becomes a Python worker. With the first three
    arguments bound, the function can be passed to ``spawn`` as ``launch``.
    """
    request = {
        "argv": argv,
        "paths": [str(process.code), *map(str, process.layers)],
        "environment": process.environment,
        "fence": fence,
    }
    return template.fork(request, channels)


def template_environment(marker: str) -> dict[str, str]:
    """Return the environment of a template.

    One variable contains ``marker``, by which a later engine finds the template and its forks in order to kill them.
    """
    return {"PATH": PATH, "LANG": "C.UTF-8", ENGINE_VARIABLE: marker, INSTANCE_VARIABLE: _PLACEHOLDER}


def _is_python(process: ProcessSpec) -> bool:
    return process.command[-1] == str(_WORKER)


def _can_fork(process: ProcessSpec) -> bool:
    return process.environment.get("LANG") == "C.UTF-8" and not any(
        name.startswith(_AT_START) for name in process.environment if name != "LANG"
    )


def _path_inside(part: str) -> str:
    path = Path(part)
    return str(RUNTIME / path.relative_to(WORKERS)) if path.is_relative_to(WORKERS) else part


def _keep_until_closed(template: Template | None, closing: set[Template]) -> None:
    """Add a template that gets no further requests to ``closing`` until it exits. Do nothing if it has exited."""
    if template is not None and not template.closed.is_set():
        closing.add(template)


async def _close(templates: list[Template]) -> None:
    for template in templates:
        template.close()
    for template in templates:
        await template.closed.wait()


class IsolationOptions(Struct, frozen=True, kw_only=True):
    """Settings that choose and configure the sandbox of functions."""

    isolation: Literal["auto", "bubblewrap", "process"] = "auto"
    fork_server: Literal["off", "need", "start"] = "need"  #: for Python instances outside a sandbox
    tmp_size: int = 512  #: MiB of the temporary folder inside a sandbox
    network: bool = True  #: functions reach the host's network; false: only loopback
    http_network: Literal["host", "own"] = "host"  #: network of HTTP functions; ``own`` has only loopback


#: Plain processes without templates; nothing is probed.
NO_ISOLATION = IsolationOptions(isolation="process", fork_server="off")


async def open_spawner(sandbox: IsolationOptions, marker: str, tmp: Path) -> Spawner:
    """Return the spawner of instances' processes that the settings choose; the caller closes it.

    The folder that contains ``tmp`` is hidden from functions in a sandbox. Raises SettingsError if the settings demand
    a sandbox and this machine has no working bubblewrap, or if functions must have no network and no sandbox is used.
    """
    if sandbox is NO_ISOLATION:
        return HostSpawner(marker, forking=False)
    if sandbox.isolation != "process":
        fence = {"tmp": sandbox.tmp_size, "network": not sandbox.network}
        outcome = await to_thread.run_sync(find_bubblewrap, tmp, fence)
        if isinstance(outcome, Bubblewrap):
            return SandboxSpawner(outcome, marker, fence=fence, own_network=sandbox.http_network == "own")
        if sandbox.isolation == "bubblewrap":
            raise SettingsError(f"executor.isolation is bubblewrap, but {outcome}; install it, or set auto or process")
        log.warning("functions run without a sandbox", reason=outcome)
    if not sandbox.network:
        raise SettingsError(
            "executor.network = false needs the bubblewrap sandbox: install bubblewrap, or set executor.network = true"
        )
    own, own_network = own_interpreter().path, sandbox.http_network == "own"
    if own_network:
        problem = await to_thread.run_sync(probe, [own, "-I", str(TEMPLATE)], _OWN_NETWORK)
        if problem:
            log.warning("HTTP functions use the host's network", reason="no network namespaces here")
            own_network = False
    spawner = HostSpawner(marker, forking=sandbox.fork_server != "off", own_network=own_network)
    if sandbox.fork_server == "start":
        spawner.prepare(own)
    return spawner
