"""Which walls stand around instances: the strongest that this machine has, or those that the settings ask for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import structlog
from anyio import to_thread
from msgspec import Struct

from engine.errors import SettingsError
from engine.executors.starter import TEMPLATE, Processes, Sandboxes, Starter
from engine.isolation.bubblewrap import Bubblewrap, find_bubblewrap
from engine.runtimes.interpreters import own_interpreter

log = structlog.get_logger("functiond")

_PATIENCE = 20.0  #: seconds that a probe may take


class IsolationOptions(Struct, frozen=True, kw_only=True):
    isolation: Literal["auto", "bubblewrap", "process"] = "auto"
    fork_server: Literal["off", "need", "start"] = "need"  #: of Python instances outside a sandbox
    tmp_size: int = 512  #: MB of the temporary folder, inside a sandbox
    network: bool = True  #: whether functions reach the host's network; else there is but loopback
    http_network: Literal["host", "own"] = "host"  #: of HTTP functions; in their own there is but loopback


#: Plain processes, each a program of its own; nothing is probed.
NO_ISOLATION = IsolationOptions(isolation="process", fork_server="off")


async def open_starter(sandbox: IsolationOptions, marker: str, tmp: Path) -> Starter:
    """To be closed. ``tmp`` lies in the folder that no function may see. Raises SettingsError."""
    if sandbox is NO_ISOLATION:
        return Processes(marker, forking=False)
    if sandbox.isolation != "process":
        fence = {"tmp": sandbox.tmp_size, "network": not sandbox.network}
        found = await to_thread.run_sync(find_bubblewrap, tmp, fence)
        if isinstance(found, Bubblewrap):
            return Sandboxes(found, marker, fence=fence, own_network=sandbox.http_network == "own")
        if sandbox.isolation == "bubblewrap":
            raise SettingsError(f"executor.isolation is bubblewrap, but {found}; install it, or set auto or process")
        log.warning("functions are not walled off from this machine", reason=found)
    if not sandbox.network:
        raise SettingsError(
            "executor.network = false needs the sandbox of bubblewrap: install it, or allow the network"
        )
    own_network = sandbox.http_network == "own" and await to_thread.run_sync(_own_network)
    if sandbox.http_network == "own" and not own_network:
        log.warning("HTTP functions have the host's network", reason="this machine gives no network namespaces")
    processes = Processes(marker, forking=sandbox.fork_server != "off", own_network=own_network)
    if sandbox.fork_server == "start":
        processes.prepare(own_interpreter().path)
    return processes


def _own_network() -> bool:
    """Whether a process here can have a network of its own. Blocks."""
    fence: dict[str, Any] = {"tmp": None, "network": True, "user": None}
    command = [own_interpreter().path, "-I", str(TEMPLATE), "--probe", json.dumps(fence)]
    try:
        return not subprocess.run(command, capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL).returncode
    except (OSError, subprocess.SubprocessError):
        return False
