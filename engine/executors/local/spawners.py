"""Spawners of instances' processes. A process is forked by a template if possible, otherwise started as a new program.

``HostSpawner`` starts processes on the host, with one template per interpreter. ``SandboxSpawner`` starts them in
bubblewrap sandboxes, with one template per ``SandboxKey`` inside its sandbox.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from engine.executors.local.spawn import PATH, Channels, InstanceSpec, ProcessSpec, Spawned, launch, spawn
from engine.executors.local.template import ForkedChild, Template
from engine.executors.local.tenants import Tenant, Tenants
from engine.isolation.bubblewrap import API, CODE, LAYERS, RUNTIME, TMP, Bubblewrap
from engine.isolation.gpus import Gpus
from engine.isolation.limits import ENGINE_VARIABLE, INSTANCE_VARIABLE, is_root
from engine.isolation.seccomp import SeccompFilter
from engine.runtimes.interpreters import WORKERS, bridge_of, own_interpreter

log = structlog.get_logger("functiond")

SandboxKey = tuple[int, str, int, Gpus]  #: function_id, version, revision, GPUs; their instances share a sandbox

_WORKER = WORKERS / "python_worker.py"
_BRIDGE = "bridge"  #: argument of a template that forks bridges, which start a ``bootstrap``
TEMPLATE = WORKERS / "python_template.py"
_PLACEHOLDER = "0" * 32  #: overwritten by the instance's id, which has the same length
#: Variables read only when a program starts: a fork cannot apply them.
_AT_START = ("LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
#: Variables that make a program run user code at its start, before its worker waits for the limits.
_RUNS_CODE = ("LD_", "GCONV_PATH", "OPENSSL_", "NODE_OPTIONS")


class Spawner(ABC):
    """Starts the processes of instances. By default, they share the host."""

    name: str  #: mechanism that separates functions from the host, such as ``bubblewrap``
    filter: SeccompFilter | None  #: of all instances; None if this machine has none
    network: str  #: of functions: ``project``, one for each; ``none``, a loopback per instance; or ``host`` and why
    tmp = 0  #: MiB of memory for the temporary files of an instance; 0: they are on a disk
    uids = range(0)  #: of instances, that no other program of this machine has; if several, each project has another

    def seen_inside(self, spec: InstanceSpec) -> InstanceSpec:
        """Return a copy of ``spec`` with the paths as the function sees them, possibly inside a sandbox."""
        return spec

    async def prepare(self, project: str) -> None:  # noqa: B027
        """Make what the processes of a project share. Call shortly before ``start``. Raises OSError."""

    @abstractmethod
    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        """Start a process. Raises OSError if the process cannot be started.

        The paths in ``process`` are those that the function sees, except in ``process.command``.
        """

    def ended(self, key: SandboxKey) -> None:  # noqa: B027
        """Register that an instance in the sandbox with this key has ended.

        Call once for each ``start``, after the exit.
        """

    @abstractmethod
    async def close(self) -> None: ...


class HostSpawner(Spawner):
    """Spawner of processes on the host, without a sandbox.

    With ``forking``, processes may be forked by templates. The template of an interpreter is started at the second use
    of the interpreter, or earlier if a process can only be started through a template. Templates run until ``close``.
    Bridges are always forked. If the engine is root's, they have an /opt of their own.
    """

    name, network = "process", "host"

    def __init__(self, marker: str, *, filter: SeccompFilter | None, forking: bool) -> None:
        self.filter = filter
        self._marker, self._forking = marker, forking
        self._templates: dict[str, Template | None] = {}  #: by interpreter, or ``_BRIDGE``; None: it was used once
        self._closing: set[Template] = set()

    def template(self, python: str) -> Template:
        """Return the template of an interpreter, or of bridges. Start it unless it runs. Raises OSError."""
        template = self._templates.get(python)
        if template is None or not template.alive:
            _keep_until_closed(template, self._closing)
            program, kind = (own_interpreter().path, _BRIDGE) if python == _BRIDGE else (python, "full")
            command = [program, "-I", str(TEMPLATE), "{fd}", kind]
            template = Template(command, template_environment(self._marker), self._closing.discard)
            self._templates[python] = template
        return template

    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        own = own_interpreter().path
        if bridge_of(process.command):
            links = spec.links if is_root() else None
            return spawn(process, spec.tmp, partial(fork, self.template(_BRIDGE), None, None, self.filter, links=links))
        if any(name.startswith(_RUNS_CODE) for name in process.environment):
            # The fork waits until the limits are in force, and then executes the program.
            return spawn(process, spec.tmp, partial(fork, self.template(own), process.command, None, self.filter))
        # Forks of a template get low descriptors. Node.js passes descriptors above 16 to the programs that it starts.
        python, argv = (process.command[0], None) if _is_python(process) else (own, process.command)
        if self._forking and (argv or _can_fork(process)):
            with suppress(OSError):  # then started by the engine instead
                template = self._second_use(python)
                if template is not None and template.ready.is_set():
                    return spawn(process, spec.tmp, partial(fork, template, argv, None, self.filter))
        return spawn(process, spec.tmp, partial(launch, popen=self.filter.popen) if self.filter else launch)

    def _second_use(self, python: str) -> Template | None:
        """Return the template of an interpreter, but None at the first use of the interpreter."""
        if python in self._templates:
            return self.template(python)
        self._templates[python] = None
        return None

    async def close(self) -> None:
        await _close([*(template for template in self._templates.values() if template), *self._closing])


class SandboxSpawner(Spawner):
    """Spawner of processes in bubblewrap sandboxes.

    A sandbox is closed ``linger`` seconds after its last instance has ended.
    """

    name, linger = "bubblewrap", 60.0

    def __init__(
        self,
        bubblewrap: Bubblewrap,
        marker: str,
        tenants: Tenants,
        *,
        fence: dict[str, Any],
        filter: SeccompFilter | None,
    ) -> None:
        self.filter = filter
        self._bubblewrap, self._marker, self._tenants, self._fence = bubblewrap, marker, tenants, fence
        shared = f"host: {tenants.problem}" if tenants.problem else "host"
        self.network = "none" if fence["network"] else "project" if tenants.own_networks else shared
        self.tmp = fence["tmp"]
        self.uids = bubblewrap.users or range(0)
        self._templates: dict[SandboxKey, Template] = {}
        self._fences: dict[SandboxKey, dict[str, Any]] = {}
        self._counts: dict[SandboxKey, int] = {}
        self._timers: dict[SandboxKey, asyncio.TimerHandle] = {}
        self._closing: set[Template] = set()

    def seen_inside(self, spec: InstanceSpec) -> InstanceSpec:
        layers = tuple(LAYERS / str(number) for number in range(len(spec.layers)))
        access = spec.access and {**spec.access, "socket": str(API)}
        return spec._replace(code=CODE, tmp=TMP, layers=layers, runtime=RUNTIME, access=access)

    async def prepare(self, project: str) -> None:
        await self._tenants.open(project)

    def start(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Spawned:
        template = self._template(key, spec, process)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._counts[key] = self._counts.get(key, 0) + 1
        forks = bridge_of(process.command) or (_is_python(process) and _can_fork(process))
        argv = None if forks else [_path_inside(part) for part in process.command]
        try:
            return spawn(process, None, partial(fork, template, argv, self._fences[key], self.filter))
        except BaseException:
            self.ended(key)
            raise

    def ended(self, key: SandboxKey) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
            self._timers[key] = asyncio.get_running_loop().call_later(self.linger, self._close_one, key)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await _close([*self._templates.values(), *self._closing])
        await self._tenants.close()

    def _template(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec) -> Template:
        template = self._templates.get(key)
        if template is None or not template.alive:
            _keep_until_closed(template, self._closing)
            template = self._tenants.enter(spec.project, partial(self._open, key, spec, process))
            self._templates[key] = template
        return template

    def _open(self, key: SandboxKey, spec: InstanceSpec, process: ProcessSpec, tenant: Tenant) -> Template:
        program = process.command[0]
        python = program if _is_python(process) else own_interpreter().path
        self._fences[key] = {**self._fence, "user": tenant.user}
        programs = [program, *(target for target in spec.links.values() if os.path.isabs(target))]
        shown = (python, spec.code, spec.layers, programs, spec.gpus.devices, spec.folders, spec.links)
        command = self._bubblewrap.command(*shown, user=tenant.user, own_network=tenant.network is not None)
        enter = tenant.network.enter if tenant.network else []
        environment = template_environment(self._marker)
        kind = [_BRIDGE] if bridge_of(process.command) else []
        return Template([*enter, *command, "{fd}", *kind], environment, partial(self._on_closed, spec.project))

    def _on_closed(self, project: str, template: Template) -> None:
        self._closing.discard(template)
        self._tenants.leave(project, template)

    def _close_one(self, key: SandboxKey) -> None:
        del self._timers[key], self._fences[key]
        template = self._templates.pop(key)
        _keep_until_closed(template, self._closing)
        template.close()


def fork(
    template: Template,
    argv: list[str] | None,
    fence: dict[str, Any] | None,
    filter: SeccompFilter | None,
    process: ProcessSpec,
    channels: Channels,
    links: Mapping[str, str] | None = None,
) -> ForkedChild:
    """Fork a process from a template.

    With ``argv``, the process executes this program; without ``argv``, it becomes a Python worker, or the bridge that
    ``process`` names, if there are ``links`` in an /opt of its own. With the first four arguments bound, the function
    can be passed to ``spawn`` as ``launch``.
    """
    request = {
        "argv": argv,
        "paths": [str(process.code), *map(str, process.layers)],
        "environment": process.environment,
        "fence": fence,
        "filter": filter and filter.request,
        "bridge": bridge_of(process.command),
        "links": links,
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
