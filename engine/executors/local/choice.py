"""Choice of the spawner of instances' processes, by the settings and by what this machine can do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import structlog
from anyio import to_thread
from msgspec import Struct

from engine.errors import SettingsError
from engine.executors.local.spawn import PATH
from engine.executors.local.spawners import HostSpawner, SandboxSpawner, Spawner, template_environment
from engine.executors.local.tenants import Tenants
from engine.isolation.bubblewrap import USER, Bubblewrap, find_bubblewrap, probe
from engine.isolation.folders import HostFolder
from engine.isolation.network import missing_program
from engine.isolation.seccomp import find_filter
from engine.runtimes.interpreters import WORKERS, own_interpreter

log = structlog.get_logger("functiond")

HostPorts = tuple[int, ...] | dict[str, tuple[int, ...]]  #: for all projects, or by project with ``ALL`` for all
ALL = "*"
_TRIAL = "*"  #: no project has this name


class IsolationOptions(Struct, frozen=True, kw_only=True):
    """Settings that choose and configure the sandbox of functions."""

    isolation: Literal["auto", "bubblewrap", "process"] = "auto"
    fork_server: Literal["off", "need", "start"] = "need"  #: for Python instances outside a sandbox
    tmp_size: int = 512  #: MiB of the temporary folder inside a sandbox
    network: Literal["auto", "project", "host", "none"] = "host"  #: auto: project if it works here, else host
    host_ports: HostPorts = ()
    #: ports of the API, with those of the host to which they lead in the network of a project; 0: none
    api_ports: dict[int, int] = {}
    user_ids: tuple[int, int] = (USER, 1)  #: the first, and how many
    folders: dict[str, HostFolder] = {}  #: of the host, for functions that ask for them by name
    projects: int = 0  #: that credentials name; ``auto`` is refused for two or more if no sandbox works


#: Plain processes without templates; only the seccomp filter is probed.
NO_ISOLATION = IsolationOptions(isolation="process", fork_server="off")


def several_projects(number: int, reason: str) -> SettingsError:
    """Return the error for credentials of several projects on a machine without a sandbox, for this ``reason``."""
    return SettingsError(
        f"the credentials are of {number} projects, whose functions would not be separated: {reason}; install "
        'bubblewrap, set executor.isolation = "process" to run them without a sandbox all the same, or configure '
        "credentials of one project only"
    )


async def open_spawner(sandbox: IsolationOptions, marker: str, tmp: Path) -> Spawner:
    """Return the spawner of instances' processes that the settings choose; the caller closes it.

    The folder that contains ``tmp`` is hidden from functions in a sandbox. Raises SettingsError if the settings demand
    a sandbox or networks that this machine cannot make, or there are several projects and no sandbox works.
    """
    filter = await to_thread.run_sync(find_filter)
    if sandbox is NO_ISOLATION:
        return HostSpawner(marker, filter=filter, forking=False)
    if sandbox.isolation != "process":
        fence = {"tmp": sandbox.tmp_size, "network": sandbox.network == "none"}
        outcome = await to_thread.run_sync(find_bubblewrap, tmp, fence, user_range(sandbox))
        if isinstance(outcome, Bubblewrap):
            tenants = await open_tenants(outcome, sandbox, marker)
            return SandboxSpawner(outcome, marker, tenants, fence=fence, filter=filter)
        if sandbox.isolation == "bubblewrap":
            raise SettingsError(f"executor.isolation is bubblewrap, but {outcome}; install it, or set auto or process")
        if sandbox.projects > 1:
            raise several_projects(sandbox.projects, outcome)
        log.warning("functions run without a sandbox", reason=outcome)
    if sandbox.network not in ("auto", "host"):
        raise SettingsError(
            f'executor.network = "{sandbox.network}" needs the bubblewrap sandbox: install bubblewrap, or set '
            'executor.network = "host"'
        )
    if sandbox.folders:
        log.warning("without a sandbox, functions see all files of the host, and can write to folders that are ro")
    spawner = HostSpawner(marker, filter=filter, forking=sandbox.fork_server != "off")
    if sandbox.fork_server == "start":
        spawner.template(own_interpreter().path)
    return spawner


def user_range(sandbox: IsolationOptions) -> range:
    first, number = sandbox.user_ids
    return range(first, first + number)


async def open_tenants(bubblewrap: Bubblewrap, sandbox: IsolationOptions, marker: str) -> Tenants:
    """Return tenants with networks of their own if the settings want them and a trial shows that they work.

    Raises SettingsError if they are demanded and do not work.
    """
    environment = template_environment(marker)
    shared = Tenants(bubblewrap, None, environment)
    if sandbox.network not in ("auto", "project"):
        return shared
    tenants = Tenants(bubblewrap, partial(ports_of, sandbox), environment)
    if not (problem := missing_program(PATH)):
        try:
            trial = await tenants.open(_TRIAL)
            command = bubblewrap.command(own_interpreter().path, WORKERS, (), user=trial.user, own_network=True)
            enter = trial.network.enter if trial.network else []
            fence = {"tmp": sandbox.tmp_size, "network": False, "user": trial.user}
            problem = await to_thread.run_sync(probe, [*enter, *command], fence)
        except OSError as error:
            problem = error.strerror or str(error)
        await tenants.close()
    if not problem:
        return tenants
    if sandbox.network == "project":
        raise SettingsError(f'executor.network is "project", but {problem}; mend it, or set executor.network = "host"')
    log.warning("functions of all projects share the host's network", reason=problem)
    shared.problem = problem
    return shared


def ports_of(sandbox: IsolationOptions, project: str) -> list[str]:
    """Return the ports that functions of a project reach on its loopback, with those of the host's to which they lead.

    The port of the API leads to that for functions, also if it is listed.
    """
    given = sandbox.host_ports
    ports = {*given.get(project, ()), *given.get(ALL, ())} if isinstance(given, dict) else given
    leads_to = {port: port for port in ports} | sandbox.api_ports
    return [f"{port}:{host_port}" for port, host_port in leads_to.items() if port and host_port]
