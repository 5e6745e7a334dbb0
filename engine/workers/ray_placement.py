"""Placement process: grants of capacity on a Ray cluster, and node supervisors.

Run by the cluster's Python as ``python ray_placement.py HOST:PORT``, on a machine with a raylet of the cluster (it may
have 0 processors). Needs ray 2.52 or newer, nothing of the engine; Python 3.9 syntax. The token of the cluster comes
from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. A cluster that admits clients without a token is refused.
Each line on standard input and output is one JSON object. The engine gives each number once. In a grant, memory is in
bytes, and gpus, labels and avoid are optional.

    from the engine  {"grant": N, "cpus", "memory", "gpus", "labels": {…}, "avoid": [NODE, …]}     ask for capacity
                     {"release": N}                              give it back, or ask no more
                     {"supervise": NODE, "number": M, "command": […], "input"}   run it there, with this standard input
                     {"end": M}                                  kill it
    to the engine    {"ready": {"ray", "python", "node"}}        first; node: this machine's
                     {"refused": REASON}                         first and last: the process exits with status 1
                     {"granted": N, "node", "gpus": [ID, …]}     each ID as in CUDA_VISIBLE_DEVICES
                     {"failed": N, "reason"}                     the grant is over; a release does nothing
                     {"ended": M, "status", "output"}            exit status, or minus the signal; null: Ray lost it
                     {"nodes": [{"id", "address", "cpus", "memory", "gpus", "labels", "draining"}, …]}    all that are
                                                                 alive, after each change and before a grant on one
                     {"problem": TEXT}                           each second: why Ray places nothing; empty: it does

A grant is a placement group of one bundle. While it waits, it is demand for the autoscaler. Ray tries again after up to
1 s, also when capacity has come free before. If the node of a held grant dies, Ray places the group elsewhere and tells
nothing. ``ended`` without a status does not prove that the command has exited. The end of its supervisor, its raylet or
this process kills it. It gets neither Ray's settings nor its token.

While the head is away, requests wait. After 60 s (RAY_gcs_rpc_server_reconnect_timeout_s in each environment), Ray ends
raylets and this process, with status 1; so does the death of this machine's raylet, after 20 s. At the end of standard
input, the process exits with status 0. Ray then removes its grants and supervisors.
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
from collections.abc import Callable
from contextlib import suppress
from subprocess import PIPE, STDOUT, Popen, run
from typing import Any

Message = dict[str, Any]
OLDEST = (2, 52)  #: release of Ray; before, its dashboard executed code for everyone
POLL, SILENT = 1.0, 3.0  #: seconds between looks at the cluster; until silence is a problem
CONNECT, TASK = 5.0, 10.0  #: seconds for a connection; until a task has told its GPUs, for which a new worker takes two
PROBE = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
OUTPUT = 8192  #: last bytes of a command's output that are kept
#: Variables that Ray sets in its workers.
RAYS_OWN = ("RAY_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "PYTHONPATH", "SPT_NOENV")


class Refused(Exception):
    """The cluster must not or cannot be used."""


class Supervisor:
    """Node supervisor, a Ray actor: runs one command, whose processes end with it."""

    def run(self, command: list[str], text: str) -> tuple[int, str]:
        """Run the command, and return its exit status and last output. The end of this process kills it."""
        prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

        def prepare() -> None:
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

        env = {name: value for name, value in os.environ.items() if not name.startswith(RAYS_OWN)}
        home, last = os.path.expanduser("~"), b""
        process = Popen(
            command, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=STDOUT, preexec_fn=prepare, cwd=home, env=env
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(text.encode())
        while piece := process.stdout.read(OUTPUT):
            last = (last + piece)[-OUTPUT:]
        return process.wait(), last.decode(errors="replace")


class RayDriver:
    """Grants, supervisors and nodes of one cluster. Each request that waits for Ray has a thread."""

    def __init__(self, ray: Any, node: str, send: Callable[[Message], None]) -> None:
        self._ray, self._node, self._send = ray, node, send
        self._supervisor = ray.remote(Supervisor)
        self._gpu_ids = ray.remote(lambda: [str(number) for number in ray.get_gpu_ids()])  # of the group it runs in
        self._held: dict[int, Any] = {}  #: placement groups from request to release; None: it waits
        self.actors: dict[int, Any] = {}  #: supervisors; the same
        self._lock = threading.Lock()  #: of both tables
        self._removals: queue.SimpleQueue[Any] = queue.SimpleQueue()  #: placement groups and supervisors
        self._known: set[str] = set()  #: ids of the nodes that the engine was told of
        self._heard, self._stuck = time.monotonic(), False  #: last answer of the head; it places nothing
        threading.stack_size(256 << 10)  # hundreds of grants may wait
        for call in (self._remove, self._watch_nodes, self._watch_placement, self._watch_head):
            self._begin(call)

    def take(self, message: Message) -> None:
        """Begin what the engine asks for. Never blocks."""
        if "grant" in message:
            self._held[message["grant"]] = None
            self._begin(self._grant, message["grant"], message)
        elif "supervise" in message:
            self.actors[message["number"]] = None
            self._begin(self._supervise, message["number"], message)
        elif "release" in message:
            self._drop(self._held, message["release"])
        else:
            self._drop(self.actors, message["end"])

    def _begin(self, call: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=call, args=arguments, daemon=True).start()

    def _keep(self, table: dict[int, Any], number: int, item: Any) -> bool:
        """Note what was made for a number. Remove it and return False if the engine wants it no more."""
        with self._lock:
            if wanted := number in table:
                table[number] = item
        if not wanted:
            self._removals.put(item)
        return wanted

    def _drop(self, table: dict[int, Any], number: int) -> bool:
        """Take a number from its table, and remove what was made for it. Return False if it has been taken."""
        with self._lock:
            known, item = number in table, table.pop(number, None)
        if item is not None:
            self._removals.put(item)
        return known

    def _remove(self) -> None:
        while True:
            item = self._removals.get()
            with suppress(Exception):
                (self._ray.kill if hasattr(item, "run") else self._ray.util.remove_placement_group)(item)

    def _grant(self, number: int, request: Message) -> None:
        gpus, selector, util = request.get("gpus", 0), dict(request.get("labels", {})), self._ray.util
        sizes = (("CPU", request["cpus"]), ("memory", request["memory"]), ("GPU", gpus))
        if avoid := request.get("avoid"):
            selector["ray.io/node-id"] = "!in({})".format(",".join(avoid))
        group, node, ids = None, "", []
        try:
            bundle = {name: size for name, size in sizes if size}
            group = util.placement_group([bundle], bundle_label_selector=[selector])
            # Also after a release: Ray loses the capacity of a group for good that is removed while it is prepared.
            while not group.wait(POLL) and number in self._held:
                pass
            while number in self._held:  # the node may die before its name is asked for
                node = util.placement_group_table(group)["bundles_to_node_id"].get(0, "")
                if node in self._known:
                    break
                time.sleep(POLL / 4)
            if gpus and number in self._held:
                strategy = util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0)
                task = self._gpu_ids.options(num_cpus=0, num_gpus=gpus, max_retries=0, scheduling_strategy=strategy)
                ids = self._ray.get(task.remote(), timeout=TASK)
        except Exception as error:
            print(f"cannot grant: {_text(error)}", file=sys.stderr)
            if group is not None:
                self._removals.put(group)
            if self._drop(self._held, number):
                self._send({"failed": number, "reason": _text(error)})
        else:
            if self._keep(self._held, number, group):
                self._send({"granted": number, "node": node, "gpus": ids})

    def _supervise(self, number: int, request: Message) -> None:
        status, output = None, ""
        try:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(request["supervise"], False)
            actor = self._supervisor.options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy).remote()
            if self._keep(self.actors, number, actor):
                status, output = self._ray.get(actor.run.remote(request["command"], request["input"]))
        except Exception as error:
            output = _text(error)
        self._drop(self.actors, number)
        self._send({"ended": number, "status": status, "output": output})

    def _watch_nodes(self) -> None:
        last = None
        while True:
            try:
                nodes = self._ray.nodes()
                self._heard = time.monotonic()
                draining = self._ray._private.state.state.get_draining_nodes()
            except Exception as error:
                print(f"cannot list the nodes: {error}", file=sys.stderr)
            else:
                alive = [_describe(node, draining) for node in nodes if node["Alive"]]
                if alive != last:
                    self._send({"nodes": alive})
                    last, self._known = alive, {node["id"] for node in alive}
                if self._node not in self._known:
                    self._send({"problem": "Ray has lost this machine, and ended all that was asked for"})
                    os._exit(1)
            time.sleep(POLL)

    def _watch_placement(self) -> None:
        """Place a group on this machine while others wait: Ray places none as long as a raylet does not answer it."""
        while True:
            time.sleep(POLL)
            with suppress(Exception):  # the head is away
                if None in list(self._held.values()):
                    group = self._ray.util.placement_group([{f"node:{self._ray.util.get_node_ip_address()}": 0.001}])
                    while not group.wait(SILENT):
                        self._stuck = True
                    self._removals.put(group)
                self._stuck = False

    def _watch_head(self) -> None:
        """Report each second whether the head answers. The thread that asks it may hang meanwhile."""
        while True:
            problem = "Ray places nothing: a raylet does not answer it; see `ray status`" if self._stuck else ""
            silent = time.monotonic() - self._heard > SILENT
            self._send({"problem": f"Ray's head has not answered for {SILENT:g} s" if silent else problem})
            time.sleep(POLL)


def _describe(node: Message, draining: dict[str, int]) -> Message:
    has, where = node["Resources"], {"id": node["NodeID"], "address": node["NodeManagerAddress"]}
    sizes = {"cpus": has.get("CPU", 0), "memory": int(has.get("memory", 0)), "gpus": has.get("GPU", 0)}
    return {**where, **sizes, "labels": node["Labels"], "draining": node["NodeID"] in draining}


def _text(error: Exception) -> str:
    return str(getattr(error, "cause", None) or error).strip() or type(error).__name__


def connect(address: str) -> Any:
    """Connect to the cluster, and return the module ``ray``. Raises Refused."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()  # Ray would try for minutes
    except (OSError, ValueError) as error:
        raise Refused(f"cannot connect to Ray's head at {address}: {error}") from None
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    os.environ["RAY_AUTH_MODE"] = "token"
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.access(file, os.R_OK):
        raise Refused(f"there is no token for Ray in RAY_AUTH_TOKEN or {file}")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # nodes need nothing of this machine's folders
    try:
        import ray
    except ImportError as error:
        raise Refused(f"{sys.executable} has no Ray: {error}") from None
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
        raise Refused(f"Ray {ray.__version__} executes code for everyone; use 2.52 or newer")
    _check_closed(address)
    try:
        ray._raylet.GcsClient(address=address)  # with a wrong token, the next line would try for 20 s
        ray.init(address, namespace="functiond", log_to_driver=False, logging_level="warning")
    except Exception as error:  # another version of Ray or Python, a wrong token, no raylet here
        advice = "; is a raylet on this machine? start one with --num-cpus 0" if "Failed to" in str(error) else ""
        raise Refused(_text(error) + advice) from None
    return ray


def _check_closed(address: str) -> None:
    """Raise Refused if the cluster admits a client without a token. Its mode cannot change within a process."""
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    tried = run([sys.executable, "-c", PROBE, address], env=env, stderr=PIPE, text=True, timeout=TASK)
    if tried.returncode == 0:
        raise Refused(f"the cluster at {address} admits everyone; start its nodes with RAY_AUTH_MODE=token and a token")
    if "nvalidAuthToken" not in tried.stderr and "nauthenticated" not in tried.stderr:
        raise Refused(f"cannot find out whether the cluster at {address} needs a token: {tried.stderr[-500:].strip()}")


def main(address: str) -> None:
    lines, lock = os.dup(1), threading.Lock()
    os.dup2(2, 1)  # Ray prints, too

    def send(message: Message) -> None:
        data = json.dumps(message).encode() + b"\n"
        with lock:
            os.write(lines, data)

    try:
        ray = connect(address)
    except Refused as refused:
        send({"refused": str(refused)})
        os._exit(1)
    node, (python, *_) = ray.get_runtime_context().get_node_id(), sys.version.split()
    send({"ready": {"ray": ray.__version__, "python": python, "node": node}})
    driver = RayDriver(ray, node, send)
    for number in (signal.SIGINT, signal.SIGTERM):  # of the engine's group: the end of input follows
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        driver.take(json.loads(line))
    for _ in range(50):
        time.sleep(0.1 if driver.actors else 0)  # agents end by themselves, and clean up
    os._exit(0)  # threads may hang in Ray


if __name__ == "__main__":
    main(*sys.argv[1:])
