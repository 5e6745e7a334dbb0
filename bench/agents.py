"""Agents of nodes on loopback: supervisors started by their command, for engines that are measured."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.server import PROJECT, Engine, until

if TYPE_CHECKING:
    from tests.support.ray_cluster import RayCluster

MEMORY = 128  #: MB of each instance
CPU = 0.3  #: processors that one such instance is granted
AGENT = (b"engine.agent", b"engine/agent/")  #: in command lines of an agent's processes
_STOP = 15.0  #: seconds that a supervisor gets to stop


def free_port() -> int:
    """Return a port that no socket uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def settings(port: int, names: Sequence[str], **more: str) -> dict[str, str]:
    """Return the environment of an engine that listens for agents. ``more`` are settings of its nodes."""
    section = "FUNCTIOND_EXECUTOR__NODES__"
    values = {"listen": f"127.0.0.1:{port}", "local": "never", **more}
    values |= {f"agents__{name}": "" for name in names}
    return {f"{section}{name.upper()}": value for name, value in values.items()}


def ray_settings(ray: RayCluster, port: int, ports: dict[str, int], folder: Path) -> dict[str, str]:
    """Return settings of nodes that are those of a Ray cluster, for an engine that listens at ``port``.

    Agents connect to the port of their node, and have a folder in ``folder``: both are set in the cluster.
    """
    for name, reached in ports.items():
        ray.variables[name] = {"AGENT_PORT": str(reached), "AGENT_DIR": str(folder / name)}
    agent = f"{sys.executable} -m engine agent --join https://127.0.0.1:$AGENT_PORT --data-dir $AGENT_DIR"
    script = f'cd {Path(__file__).parents[1]} && shift 2 && exec {agent} "$@"'  # the first two are ``--join URL``
    return {
        "ray": ray.address,
        "python": str(ray.python),
        "command": shlex.join(["sh", "-c", script, "agent"]),
        "url": f"https://127.0.0.1:{port}",
    }


def ray_variables(ray: RayCluster) -> dict[str, str]:
    """Return the environment of a program that connects to the cluster."""
    return {name: value for name, value in ray.environment.items() if name.startswith("RAY_")}


def states(server: Engine) -> list[dict[str, Any]]:
    """Return what the engine reports about its nodes."""
    report: dict[str, Any] = server.call("GET", f"/v2/{PROJECT}/fgs/nodes")
    return list(report["nodes"])


def wait_until_ready(server: Engine, names: Sequence[str]) -> None:
    """Return when the agents of all these nodes have joined."""
    until(
        lambda: {*names} <= {node["name"] for node in states(server) if node["state"] == "ready"},
        f"the nodes {', '.join(names)} did not join",
    )


def descendants(pid: int) -> list[int]:
    """Return all processes below a process, parents before their children. Those of ended processes are left out."""
    pids: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += [int(child), *descendants(int(child))]
    return pids


def below(pid: int, *words: bytes) -> list[int]:
    """Return the processes below a process that have one of these words in their command line."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if any(word in command for word in words):
                found.append(child)
    return found


class Agent:
    """Supervisor of one node, which starts the node's agent. Room for ``instances`` of 128 MB."""

    def __init__(self, name: str, token: Path, port: int, folder: Path, *, instances: int) -> None:
        self.name, self.folder = name, folder
        self._log = folder.with_suffix(".log")
        self._command = [
            *(sys.executable, "-m", "engine", "agent"),
            *("--join", f"https://127.0.0.1:{port}", "--token", str(token), "--data-dir", str(folder)),
            *("--cpus", f"{instances * CPU:.1f}", "--memory", str(instances * MEMORY)),
        ]
        self._popen: subprocess.Popen[bytes] | None = None
        self.killed = False  #: since it was started

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the supervisor; None while it runs."""
        assert self._popen is not None
        return self._popen.poll()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.killed = False

    def processes(self) -> list[int]:
        """Return the processes of the agent without instances: program ``unshare``, process 1, and the agent."""
        return below(self.pid, *AGENT)

    def signal(self, number: signal.Signals, *pids: int) -> None:
        """Send a signal to processes of this node; those that have ended are left out."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill the supervisor."""
        self.killed = True
        self.signal(signal.SIGKILL, self.pid)

    def owns(self, node: dict[str, Any]) -> bool:
        """Return whether a node that the engine reports is this one."""
        return bool(node["name"] == self.name)

    def wait(self) -> None:
        assert self._popen is not None
        self._popen.wait(_STOP)

    def stop(self) -> None:
        """End the supervisor, and with it everything on the node."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self.signal(signal.SIGCONT, self.pid, *self.processes())
        self._popen.terminate()
        try:
            self._popen.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


@contextmanager
def agents(data: Path, port: int, names: Sequence[str], folder: Path, *, instances: int) -> Iterator[list[Agent]]:
    """Yield agents that are not started yet, and stop them after the block. ``data`` is the engine's directory."""
    made = [Agent(name, data / "nodes" / f"{name}.token", port, folder / name, instances=instances) for name in names]
    with ExitStack() as stack:
        for agent in made:
            stack.callback(agent.stop)
        yield made


def wait_for(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``true()`` returns True. Return False if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
