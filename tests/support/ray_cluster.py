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
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
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
#: A node that does not answer is given up after some seconds, see the documentation on Ray.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
#: ``ray start``, which else replaces 127.0.0.1 by the machine's address and listens at all addresses, and takes a node
#: of the machine for its head, so that the head could not start again.
START = """
from ray._private import ray_constants, services
from ray.scripts.scripts import main

services.get_node_ip_address = lambda address=None: "127.0.0.1"
services.find_gcs_addresses = set
ray_constants.ENABLE_RAY_CLUSTER = True
main()
"""
#: Prints, for each line that it reads, how many placement groups wait and are held, and for how many ms each node has
#: been idle.
BOOKS = """
import json, sys
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state

client = GcsClient(address=sys.argv[1])
for _ in sys.stdin:
    state = get_cluster_resource_state(client)
    nodes = [node for node in state.node_states if node.status != 2]  # DEAD
    idle = {node.node_id.hex(): node.idle_duration_ms for node in nodes}
    names = [name for node in nodes for name in node.available_resources]
    held = [name for name in names if name.startswith("bundle_group_0_")]
    waiting = len(state.pending_gang_resource_requests)
    print(json.dumps({"waiting": waiting, "held": len(held), "idle": idle}), flush=True)
"""


class RayCluster:
    """Nodes ``a`` (the head) and ``b``, each with its letter as label ``zone``. Node b has two GPUs, by declaration."""

    def __init__(self, folder: Path, token: str, reconnect_timeout: int = 60, cpus: int = CPUS) -> None:
        self.python, self.port, self._folder, self._id = ray_python(), free_port(), folder, uuid.uuid4().hex
        self.address, self._cpus = f"127.0.0.1:{self.port}", cpus
        self.processes: dict[str, subprocess.Popen[bytes]] = {}  #: of ``ray start``, by node
        #: Variables of single nodes, and so of their workers: agents need folders of their own on this machine.
        self.variables = {name: {"AGENT_DIR": str(folder / f"agent-{name}")} for name in "ab"}
        #: Of clients; the last variable makes Ray use 127.0.0.1 as it is.
        self.environment = {
            **CLEAN,
            "HOME": str(folder),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(reconnect_timeout),
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
            **QUICK,
        }

    async def start(self, *, second: bool = True) -> None:
        for name in "ab" if second else "a":
            self.start_node(name)
            await until(partial(self._started, name))

    def _started(self, name: str) -> bool:
        assert self.processes[name].poll() is None, (self._folder / f"{name}.out").read_text()[-3000:]
        return self.runs(name)

    def runs(self, name: str) -> bool:
        """Return whether a node has started, and its ``ray start`` has not exited, as it does when a part dies."""
        output = (self._folder / f"{name}.out").read_text()
        return "Ray runtime started" in output and self.processes[name].poll() is None

    def start_node(self, name: str) -> None:
        """Start a node, or start it again. Node b exits if the head does not answer."""
        head = ("--head", "--port", str(self.port), "--include-dashboard", "false")
        options = head if name == "a" else ("--address", self.address, "--num-gpus", "2")
        sizes = ("--num-cpus", str(self._cpus), "--memory", "4000000000", "--object-store-memory", "90000000")
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
            self.processes[name] = subprocess.Popen(
                [*command, "--include-log-monitor", "false"],
                env=self._environment | self.variables[name],
                cwd=self._folder,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
            )

    def pid(self, program: str, name: str = "") -> int:
        """Return the process of a program of Ray: ``gcs_server``, or ``raylet`` of a node."""
        processes = marked("AGENT_DIR", self.variables[name]["AGENT_DIR"]) if name else marked(MARKER, self._id)
        found = (pid for pid in processes if _command_line(pid).partition("\0")[0].endswith(f"/{program}"))
        return min(found)  # a child has the same command line until it executes another program

    def drain(self, node_id: str) -> None:
        """Announce the end of a node to Ray, as a provider does that takes a machine back in a minute."""
        why = (
            "--reason",
            "DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message",
            "test",
            "--deadline-remaining-seconds",
            "60",
        )
        command = (self.python, "-c", START, "drain-node", "--address", self.address, "--node-id", node_id, *why)
        subprocess.run(command, env=self._environment, check=True, capture_output=True)

    def kill_raylet_of_head(self) -> None:
        """Kill it while ``ray start`` is stopped, which would end the head, too."""
        self.processes["a"].send_signal(signal.SIGSTOP)
        os.kill(self.pid("raylet", "a"), signal.SIGKILL)

    def kill(self) -> None:
        """Kill all processes of the cluster, and what they have started."""
        assert kill_marked(MARKER, self._id) == []
        for process in self.processes.values():
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

    async def problem(self, part: str) -> None:
        """Wait until a problem with this text is told, or with an empty text, until there is none any more."""
        while True:
            told = (await self.receive("problem"))["problem"]
            if part in told if part else not told:
                return

    async def nodes(self, count: int) -> dict[str, dict[str, Any]]:
        """Wait until so many nodes are alive. Return them by their zone."""
        while len(nodes := (await self.receive("nodes"))["nodes"]) != count:
            pass
        return {node["labels"]["zone"]: node for node in nodes}


@asynccontextmanager
async def placement(cluster: RayCluster, **environment: str) -> AsyncIterator[PlacementProcess]:
    """Run a placement process until the block ends. It may have exited before."""
    command: tuple[str | Path, ...] = (cluster.python, PROGRAM, cluster.address)
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


@contextmanager
def cluster_to_start(token: str = TOKEN, *, reconnect_timeout: int = 60, cpus: int = CPUS) -> Iterator[RayCluster]:
    """Yield a cluster without nodes, and kill it after the block. Its folder has a short name, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder, token, reconnect_timeout, cpus)
    try:
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder)


@asynccontextmanager
async def ray_cluster(
    token: str = TOKEN, *, second: bool = True, reconnect_timeout: int = 60
) -> AsyncIterator[RayCluster]:
    """Run a cluster until the block ends."""
    with cluster_to_start(token, reconnect_timeout=reconnect_timeout) as cluster:
        await cluster.start(second=second)
        yield cluster


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
