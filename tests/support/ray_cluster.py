"""Ray cluster on loopback, a head and a second node, and the placement process that connects to it.

Ray is installed into a virtual environment in the user's cache on first use, or in the folder FUNCTIOND_RAY.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest

from engine.isolation.processes import kill_marked, marked
from tests.support.engine_process import CLEAN, ROOT
from tests.support.ports import free_port
from tests.support.waiting import until

PACKAGE = "ray>=2.52"
PROGRAM = ROOT / "engine" / "workers" / "ray_placement.py"
MARKER = "TEST_RAY_CLUSTER"  #: variable in the environment of all processes of a cluster
CPUS = 2  #: of each node
TOKEN = uuid.uuid4().hex * 2
#: ``ray start``, which else replaces 127.0.0.1 by the machine's address and listens at all addresses.
START = """
from ray._private import ray_constants, services
from ray.scripts.scripts import main

services.get_node_ip_address = lambda address=None: "127.0.0.1"
ray_constants.ENABLE_RAY_CLUSTER = True
main()
"""
#: Prints, for each line that it reads, how many placement groups wait, and for how many ms each node has been idle.
BOOKS = """
import json, sys
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state

client = GcsClient(address=sys.argv[1])
for _ in sys.stdin:
    state = get_cluster_resource_state(client)
    idle = {node.node_id.hex(): node.idle_duration_ms for node in state.node_states}
    print(json.dumps({"waiting": len(state.pending_gang_resource_requests), "idle": idle}), flush=True)
"""


class RayCluster:
    """Nodes ``a`` (the head) and ``b``, each with its letter as label ``zone``. Node b has two GPUs, by declaration."""

    def __init__(self, folder: Path, token: str, patience: int = 60) -> None:
        self.python, self.port, self._folder, self._id = ray_python(), free_port(), folder, uuid.uuid4().hex
        self.address, self._processes = f"127.0.0.1:{self.port}", list[subprocess.Popen[bytes]]()
        #: Of clients; the last variable makes Ray use 127.0.0.1 as it is.
        self.environment = {
            **CLEAN,
            "HOME": str(folder),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(patience),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        if token:
            self.environment["RAY_AUTH_TOKEN"] = token
        self._environment = {
            **self.environment,
            "RAY_AUTH_MODE": "token" if token else "disabled",
            MARKER: self._id,
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    async def start(self, *, second: bool = True) -> None:
        self._start("a", "--head", "--port", str(self.port), "--include-dashboard", "false")
        await until(lambda: self._runs("a"))
        if second:
            self._start("b", "--address", self.address, "--num-gpus", "2")
            await until(lambda: self._runs("b"))

    def _runs(self, name: str) -> bool:
        output = (self._folder / f"{name}.out").read_text()
        assert self._processes[-1].poll() is None, output[-3000:]
        return "Ray runtime started" in output

    def _start(self, name: str, *options: str) -> None:
        sizes = ("--num-cpus", str(CPUS), "--memory", "4000000000", "--object-store-memory", "90000000")
        workers = ("--min-worker-port", "0", "--max-worker-port", "0")  # any port, else those of other servers
        place = ("--node-ip-address", "127.0.0.1", "--temp-dir", str(self._folder / name), "--labels", f"zone={name}")
        command: list[str | Path] = [
            "nice",
            "-n",
            "10",
            self.python,
            "-c",
            START,
            "start",
            "--block",
            *options,
            *sizes,
            *workers,
            *place,
        ]
        with (self._folder / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                [*command, "--include-log-monitor", "false"],
                env=self._environment,
                cwd=self._folder,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)

    def pid(self, program: str, name: str = "") -> int:
        """Return the process of a program of Ray: ``gcs_server``, or ``raylet`` of a node."""
        words = f"/{program}\0", str(self._folder / name)
        (found,) = (pid for pid in marked(MARKER, self._id) if all(word in _command_line(pid) for word in words))
        return found

    def kill_raylet_of_head(self) -> None:
        """Kill it while ``ray start`` is stopped, which would end the head, too."""
        self._processes[0].send_signal(signal.SIGSTOP)
        os.kill(self.pid("raylet", "a"), signal.SIGKILL)

    def kill(self) -> None:
        """Kill all processes of the cluster, and what they have started."""
        assert kill_marked(MARKER, self._id) == []
        for process in self._processes:
            process.wait()


class Books:
    """Ray's record of demand and idle nodes, as its autoscaler reads it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


class PlacementProcess:
    """Placement process, and the messages that it has sent."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._unread: list[dict[str, Any]] = []

    def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def receive(self, kind: str, number: int | None = None) -> dict[str, Any]:
        """Return the next message of a kind, and with this number. Keep others for later."""
        assert self.process.stdout is not None
        seen = 0
        async with asyncio.timeout(60):
            while True:
                for place, message in enumerate(self._unread[seen:], seen):
                    if kind in message and number in (None, message[kind]):
                        return self._unread.pop(place)
                seen = len(self._unread)
                line = await self.process.stdout.readline()
                assert line, f"it has exited; unread: {self._unread}"
                self._unread.append(json.loads(line))

    async def nodes(self, count: int) -> dict[str, dict[str, Any]]:
        """Wait until so many nodes are alive. Return them by their zone."""
        while len(nodes := (await self.receive("nodes"))["nodes"]) != count:
            pass
        return {node["labels"]["zone"]: node for node in nodes}


@asynccontextmanager
async def placement(cluster: RayCluster, *options: str, **environment: str) -> AsyncIterator[PlacementProcess]:
    """Run a placement process until the block ends. It may have exited before."""
    command: tuple[str | Path, ...] = (cluster.python, PROGRAM, cluster.address, *options)
    env = {name: value for name, value in {**cluster.environment, **environment}.items() if value}
    async with _process(*command, env=env) as process:
        yield PlacementProcess(process)


@asynccontextmanager
async def books(cluster: RayCluster) -> AsyncIterator[Books]:
    env = {**cluster.environment, "RAY_AUTH_MODE": "token"}
    async with _process(cluster.python, "-c", BOOKS, cluster.address, env=env) as process:
        yield Books(process)


@asynccontextmanager
async def _process(*command: str | Path, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=env, limit=1 << 20)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def ray_cluster(token: str = TOKEN, *, second: bool = True, patience: int = 60) -> AsyncIterator[RayCluster]:
    """Run a cluster until the block ends. Its folder has a short name, as the names of sockets are limited."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder, token, patience)
    try:
        await cluster.start(second=second)
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder)


@functools.cache
def ray_python() -> Path:
    """Return the interpreter of an environment with Ray. Skip the test if there is none, and it cannot be made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("FUNCTIOND_RAY") or cache / "functiond-ray")
    place.mkdir(parents=True, exist_ok=True)
    python = place / "bin" / "python"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tried: list[tuple[str | Path, ...]] = [(python, "-c", "import ray")]
        if not python.exists() or subprocess.run(tried[0], capture_output=True).returncode:
            tried = [(sys.executable, "-m", "venv", place), (python, "-m", "pip", "install", "-q", PACKAGE)]
            for command in tried:
                done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                why = (done.stderr or done.stdout).strip().rpartition("\n")[2]
                pytest.skip(f"there is no Ray: {PACKAGE} cannot be installed in {place}: {why}")
    return python


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
