"""Choice between bubblewrap sandboxes and plain processes: as in the settings, or the strongest available."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import structlog
from anyio import to_thread
from msgspec import Struct

from engine.errors import SettingsError
from engine.executors.local.spawners import TEMPLATE, HostSpawner, SandboxSpawner, Spawner
from engine.isolation.bubblewrap import Bubblewrap, find_bubblewrap
from engine.runtimes.interpreters import own_interpreter

log = structlog.get_logger("functiond")

_PROBE_TIMEOUT = 20.0  #: seconds


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
        found = await to_thread.run_sync(find_bubblewrap, tmp, fence)
        if isinstance(found, Bubblewrap):
            return SandboxSpawner(found, marker, fence=fence, own_network=sandbox.http_network == "own")
        if sandbox.isolation == "bubblewrap":
            raise SettingsError(f"executor.isolation is bubblewrap, but {found}; install it, or set auto or process")
        log.warning("functions run without a sandbox", reason=found)
    if not sandbox.network:
        raise SettingsError(
            "executor.network = false needs the bubblewrap sandbox: install bubblewrap, or set executor.network = true"
        )
    own_network = sandbox.http_network == "own" and await to_thread.run_sync(_own_network)
    if sandbox.http_network == "own" and not own_network:
        log.warning("HTTP functions use the host's network", reason="no network namespaces here")
    spawner = HostSpawner(marker, forking=sandbox.fork_server != "off", own_network=own_network)
    if sandbox.fork_server == "start":
        spawner.prepare(own_interpreter().path)
    return spawner


def _own_network() -> bool:
    """Return whether this machine allows a process to have a network namespace. Blocks."""
    fence: dict[str, Any] = {"tmp": None, "network": True, "user": None}
    command = [own_interpreter().path, "-I", str(TEMPLATE), "--probe", json.dumps(fence)]
    try:
        return not subprocess.run(
            command, capture_output=True, timeout=_PROBE_TIMEOUT, stdin=subprocess.DEVNULL
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return False
