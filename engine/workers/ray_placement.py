"""Placement process: grants of capacity on a Ray cluster, and node supervisors.

Run by the cluster's Python as ``python ray_placement.py HOST:PORT [--insecure]``, on a machine with a raylet of the
cluster (it may have 0 processors). Needs ray 2.52 or newer, nothing of the engine; Python 3.9 syntax. The token of the
cluster comes from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. Without ``--insecure``, a cluster that
admits clients without a token is refused. Each line on standard input and output is one JSON object. The engine gives
each number once. In a grant, memory is in bytes, and gpus, labels and avoid are optional.

    from the engine  {"grant": N, "cpus", "memory", "gpus", "labels": {…}, "avoid": [NODE, …]}     ask for capacity
                     {"release": N}                              give it back, or ask no more
                     {"supervise": NODE, "number": M, "command": […], "input"}   run it there, with this standard input
                     {"end": M}                                  kill it
    to the engine    {"ready": {"ray", "python", "node"}}        first; node: this machine's
                     {"refused": REASON}                         first and last: the process exits with status 1
                     {"granted": N, "node", "gpus": [ID, …]}     each ID as in CUDA_VISIBLE_DEVICES
                     {"failed": N, "reason"}                     the grant is over; a release does nothing
                     {"started": M, "pid"}
                     {"ended": M, "status", "output"}            exit status, or minus the signal; null: Ray lost it
                     {"nodes": [{"id", "address", "cpus", "memory", "gpus", "labels", "draining"}, …]}
                                                                 all that are alive, after each change; draining: null,
                                                                 or until when, in seconds since 1970 (0: not known)
                     {"problem": TEXT}                           the head does not answer; empty: it does again

A grant is a placement group of one bundle. While it waits, it is demand for the autoscaler. Ray tries again after up to
1 s, also when capacity has come free before. If the node of a held grant dies, Ray places the group elsewhere, untold.
``ended`` without a status does not prove that the command has exited: the node may be out of reach. The command is
killed when its supervisor, its raylet or this process ends. It gets neither Ray's settings nor its token.

While the head is away, requests wait. When it has been away for 60 s (RAY_gcs_rpc_server_reconnect_timeout_s in the
environment of each), Ray ends raylets, thereby supervisors, and this process, with status 1; so does the death of this
machine's raylet, some 20 s later. At the end of standard input, the process exits with status 0. Ray removes the grants
and supervisors of a process that has exited.
"""

import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from subprocess import PIPE, STDOUT, Popen, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

OLDEST = (2, 52)  #: release of Ray; before, its dashboard executed code for everyone
POLL, SILENT, CONNECT = 1.0, 3.0, 5.0  #: seconds between looks at the nodes; until silence is a problem; to connect
PROBE = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
OUTPUT = 8192  #: last bytes of a command's output that are kept
#: Variables that Ray sets in its workers.
RAYS_OWN = ("RAY_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "PYTHONPATH", "SPT_NOENV")


class Refused(Exception):
    """The cluster must not or cannot be used."""


class Supervisor:
    """Node supervisor, a Ray actor: runs one command, whose processes end with it."""

    def start(self, command: "list[str]", text: str) -> int:
        """Start the command. Called in the actor's main thread, whose end kills the command."""
        prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

        def prepare() -> None:
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

        env = {name: value for name, value in os.environ.items() if not name.startswith(RAYS_OWN)}
        self.process = Popen(
            command, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=STDOUT, preexec_fn=prepare, cwd="/", env=env
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(text.encode())
        return self.process.pid

    def wait(self) -> "tuple[int, str]":
        """Return the exit status and the last output of the command."""
        assert self.process.stdout is not None
        last = b""
        while piece := self.process.stdout.read(OUTPUT):
            last = (last + piece)[-OUTPUT:]
        return self.process.wait(), last.decode(errors="replace")


def gpu_ids() -> "list[str]":
    """Return the GPUs of the placement group in which Ray runs this task."""
    import ray

    return [str(number) for number in ray.get_gpu_ids()]


class RayDriver:
    """Grants, supervisors and nodes of one cluster. Each request that waits for Ray has a thread."""

    def __init__(self, ray: "Any", node: str, send: "Callable[[Message], None]") -> None:
        self._ray, self._node, self._send = ray, node, send
        self._supervisor, self._gpu_ids = ray.remote(Supervisor), ray.remote(gpu_ids)
        self._held: dict[int, Any] = {}  #: placement groups from request to end; None: not asked for yet
        self._actors: dict[int, Any] = {}  #: supervisors; the same
        self._lock = threading.Lock()  #: of both tables
        self._removals: queue.SimpleQueue[Any] = queue.SimpleQueue()  #: placement groups and supervisors
        self._heard = time.monotonic()  #: last answer of the head
        threading.stack_size(256 << 10)  # hundreds of grants may wait
        for call in (self._remove, self._watch_nodes, self._watch_head):
            self._begin(call)

    def take(self, message: "Message") -> None:
        """Begin what the engine asks for. Never blocks."""
        if "grant" in message:
            self._held[message["grant"]] = None
            self._begin(self._grant, message["grant"], message)
        elif "supervise" in message:
            self._actors[message["number"]] = None
            self._begin(self._supervise, message["number"], message)
        elif "release" in message:
            self._drop(self._held, message["release"])
        else:
            self._drop(self._actors, message["end"])

    def _begin(self, call: "Callable[..., None]", *arguments: "Any") -> None:
        threading.Thread(target=call, args=arguments, daemon=True).start()

    def _keep(self, table: "dict[int, Any]", number: int, item: "Any") -> bool:
        """Note what was made for a number. Remove it and return False if the engine wants it no more."""
        with self._lock:
            if wanted := number in table:
                table[number] = item
        if not wanted:
            self._removals.put(item)
        return wanted

    def _drop(self, table: "dict[int, Any]", number: int) -> bool:
        """Take a number from its table, and remove what was made for it. Return False if it has been taken."""
        with self._lock:
            known, item = number in table, table.pop(number, None)
        if item is not None:
            self._removals.put(item)
        return known

    def _remove(self) -> None:
        while True:
            item = self._removals.get()
            try:
                (self._ray.kill if hasattr(item, "start") else self._ray.util.remove_placement_group)(item)
            except Exception as error:
                print(f"cannot remove: {error}", file=sys.stderr)

    def _grant(self, number: int, wish: "Message") -> None:
        gpus, selector, util = wish.get("gpus", 0), dict(wish.get("labels", {})), self._ray.util
        bundle = {"CPU": wish["cpus"], "memory": wish["memory"], "GPU": gpus}
        if avoid := wish.get("avoid"):
            selector["ray.io/node-id"] = "!in({})".format(",".join(avoid))
        try:
            bundle = {name: amount for name, amount in bundle.items() if amount}
            group = util.placement_group([bundle], bundle_label_selector=[selector])
            if not self._keep(self._held, number, group):
                return
            node, ids = "", []
            while not node:  # the node may die before its name is asked for
                group.wait(1 << 20)
                node = util.placement_group_table(group)["bundles_to_node_id"].get(0, "")
            if gpus:
                strategy = util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0)
                task = self._gpu_ids.options(num_cpus=0, num_gpus=gpus, max_retries=0, scheduling_strategy=strategy)
                ids = self._ray.get(task.remote())
        except Exception as error:
            if self._drop(self._held, number):  # else it was released, which ends the wait
                self._send({"failed": number, "reason": _text(error)})
        else:
            self._send({"granted": number, "node": node, "gpus": ids})

    def _supervise(self, number: int, wish: "Message") -> None:
        status, output = None, ""
        try:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(wish["supervise"], False)
            actor = self._supervisor.options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy).remote()
            if self._keep(self._actors, number, actor):
                pid = self._ray.get(actor.start.remote(wish["command"], wish["input"]))
                self._send({"started": number, "pid": pid})
                status, output = self._ray.get(actor.wait.remote())
        except Exception as error:
            output = _text(error)
        self._drop(self._actors, number)
        self._send({"ended": number, "status": status, "output": output})

    def _watch_nodes(self) -> None:
        last = None
        while True:
            try:
                nodes, draining = self._ray.nodes(), self._ray._private.state.state.get_draining_nodes()
            except Exception as error:
                print(f"cannot list the nodes: {error}", file=sys.stderr)
            else:
                self._heard = time.monotonic()
                alive = [_describe(node, draining) for node in nodes if node["Alive"]]
                if alive != last:
                    self._send({"nodes": alive})
                    last = alive
                if not any(node["id"] == self._node for node in alive):
                    self._send({"problem": "Ray has lost this machine, and ended all that was asked for"})
                    os._exit(1)
            time.sleep(POLL)

    def _watch_head(self) -> None:
        """Report when the head stops answering. The thread that asks it may hang meanwhile."""
        last = ""
        while True:
            silent = time.monotonic() - self._heard > SILENT
            if (problem := f"Ray's head has not answered for {SILENT:g} s" if silent else "") != last:
                self._send({"problem": problem})
                last = problem
            time.sleep(POLL / 4)


def _describe(node: "Message", draining: "dict[str, int]") -> "Message":
    has, deadline = node["Resources"], draining.get(node["NodeID"])
    sizes = {"cpus": has.get("CPU", 0), "memory": int(has.get("memory", 0)), "gpus": has.get("GPU", 0)}
    place = {"id": node["NodeID"], "address": node["NodeManagerAddress"], "labels": node["Labels"]}
    return {**place, **sizes, "draining": None if deadline is None else deadline / 1000}


def _text(error: Exception) -> str:
    return str(getattr(error, "cause", None) or error).strip() or type(error).__name__


def connect(address: str, insecure: bool) -> "Any":
    """Connect to the cluster, and return the module ``ray``. Raises Refused."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()  # Ray would try for minutes
    except (OSError, ValueError) as error:
        raise Refused(f"cannot connect to Ray's head at {address}: {error}") from None
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or os.access(file, os.R_OK):
        os.environ["RAY_AUTH_MODE"] = "token"
    elif not insecure:
        raise Refused(f"there is no token for Ray in RAY_AUTH_TOKEN or {file}")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # nodes need nothing of this machine's folders
    try:
        import ray
    except ImportError as error:
        raise Refused(f"{sys.executable} has no Ray: {error}") from None
    if not insecure:
        if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
            raise Refused(f"Ray {ray.__version__} executes code for everyone; use 2.52 or newer")
        _check_closed(address)
    try:
        ray._raylet.GcsClient(address=address)  # with a wrong token, the next line would try for 20 s
        ray.init(address, namespace="functiond", log_to_driver=False, logging_level="warning")
    except Exception as error:  # another version of Ray or Python, a wrong token, no raylet here
        raise Refused(_text(error)) from None
    return ray


def _check_closed(address: str) -> None:
    """Raise Refused if the cluster admits a client without a token. Its mode cannot change within a process."""
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    tried = run([sys.executable, "-c", PROBE, address], env=env, stderr=PIPE, text=True)
    if tried.returncode == 0:
        raise Refused(f"the cluster at {address} admits everyone; start its nodes with RAY_AUTH_MODE=token and a token")
    if "nvalidAuthToken" not in tried.stderr and "nauthenticated" not in tried.stderr:
        raise Refused(f"cannot find out whether the cluster at {address} needs a token: {tried.stderr[-500:].strip()}")


def main(address: str, *options: str) -> None:
    lines, lock = os.dup(1), threading.Lock()
    os.dup2(2, 1)  # Ray prints, too

    def send(message: "Message") -> None:
        data = json.dumps(message).encode() + b"\n"
        with lock:
            while data:
                data = data[os.write(lines, data) :]

    try:
        ray = connect(address, "--insecure" in options)
    except Refused as refused:
        send({"refused": str(refused)})
        os._exit(1)
    node, (python, *_) = ray.get_runtime_context().get_node_id(), sys.version.split()
    send({"ready": {"ray": ray.__version__, "python": python, "node": node}})
    driver = RayDriver(ray, node, send)
    for line in sys.stdin.buffer:
        driver.take(json.loads(line))
    os._exit(0)  # threads may hang in Ray


if __name__ == "__main__":
    main(*sys.argv[1:])
