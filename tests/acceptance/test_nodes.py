"""Functions on a node, from outside: an engine, an agent on loopback, and requests to the engine only."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.engine_process import (
    BASE,
    ECHO,
    FILES,
    PROJECT,
    EngineProcess,
    begun,
    descendants,
    engine_on,
    folders,
    held_event,
    until,
    urn_of,
)
from tests.support.bridging import needs_network
from tests.support.engine_process import CLEAN, PROGRAM, ROOT
from tests.support.ports import free_port
from tests.support.programs import needs

HELD = """
import os, time

def handler(event, context):
    with open(event["runs"], "a") as file:
        file.write(context.getRequestID() + "\\n")
    print("it runs", flush=True)
    while not os.path.exists(event["gate"]):
        time.sleep(0.02)
    return "ended"
"""
#: Writes a sign of life every 20 ms.
LIVING = """
import os, time

def handler(event, context):
    run = os.urandom(4).hex()
    while not os.path.exists(event["gate"]):
        with open(event["runs"], "a") as file:
            file.write(run + "\\n")
        time.sleep(0.02)
    return "ended"
"""
ACCESS = """
import os
from functiond import Client

def handler(event, context):
    with Client() as client:
        keys = [os.environ["KEY"], context.getSecretKey()]
        return [client.call("echo", event), os.environ["FUNCTIOND_PROJECT"], *keys]
"""
_NEW_NETWORK = 0x40000000  #: CLONE_NEWNET of unshare(2)
NODES = f"/v2/{PROJECT}/fgs/nodes"
ON_NODES = {
    "FUNCTIOND_EXECUTOR__NODES__LOCAL": "never",
    "FUNCTIOND_EXECUTOR__NODES__AGENTS__N1": "",
    "FUNCTIOND_EXECUTOR__NODES__LEASE": "1",
}


def states(engine: EngineProcess) -> list[str]:
    return [node["state"] for node in engine.ask("GET", NODES).json["nodes"]]


@contextmanager
def agent(
    engine: EngineProcess, port: int, *options: str, host: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agent until the block ends, or until it exits by itself. Wait until it has joined.

    ``prefix`` is a program that executes it, with its arguments.
    """
    folder = engine.data.parent
    command = [*prefix, *PROGRAM, "agent", "--join", f"https://{host}:{port}", "--data-dir", str(folder / "agent")]
    command += ["--token", str(engine.data / "nodes" / "n1.token"), *options]
    with subprocess.Popen(command, env=CLEAN, cwd=ROOT, stdout=sys.stderr) as process:
        try:
            until(lambda: states(engine) == ["ready"])
            yield process
        finally:
            process.terminate()


@pytest.fixture
def port() -> int:
    """Return a port that is free now, at which agents find the engine after its restart."""
    return free_port()


@contextmanager
def cluster(folder: Path, port: int, *options: str, **settings: str) -> Iterator[EngineProcess]:
    """Run an engine and an agent."""
    listen = {"FUNCTIOND_EXECUTOR__NODES__LISTEN": f"127.0.0.1:{port}"}
    with engine_on(folder / "data", **ON_NODES, **listen, **settings) as engine, agent(engine, port, *options):
        yield engine


@needs("bwrap")
def test_a_sandboxed_function_on_a_node_calls_another_by_the_api(tmp_path: Path, port: int) -> None:
    keys = {"ACCESS_KEY": "access", "SECRET_KEY": "secret-of-the-agency", "PROJECTS": "*"}
    agency = {f"FUNCTIOND_AGENCIES__A__{name}": value for name, value in keys.items()}
    with cluster(tmp_path, port, FUNCTIOND_EXECUTOR__ISOLATION="auto", **agency) as engine:
        engine.create("echo", ECHO)
        engine.create("access", ACCESS, xrole="a", encrypted_user_data='{"KEY": "secret of the function"}')

        reply = engine.ask("POST", f"{BASE}/{urn_of('access')}/invocations", {"a": 1})

        assert (reply.status, reply.json) == (
            200,
            [{"a": 1}, PROJECT, "secret of the function", "secret-of-the-agency"],
        )
        assert engine.metric("functiond_node_instances") == 2
        files = [path for path in (tmp_path / "agent").rglob("*") if path.is_file()]
        assert [path for path in files if re.search(b"secret.of.the", path.read_bytes())] == []
        assert [path.name for path in files if b"client.call" in path.read_bytes()] == ["index.py"]


@needs("bwrap")
def test_a_node_has_folders_of_its_own_under_the_names_of_the_engine(tmp_path: Path, home: Path, port: int) -> None:
    listed = folders(home, IMAGES__MODE="rw", ABSENT__PATH=str(home / "absent"))
    options = ("--folder", f"images={home / 'node'}:ro", "--folder", f"out={home / 'out'}")
    with cluster(tmp_path, port, *options, **listed, FUNCTIOND_EXECUTOR__ISOLATION="bubblewrap") as engine:
        engine.create("files", FILES, functiond={"folders": ["images", "out"]})
        engine.create("waits", FILES, functiond={"folders": ["absent"]})

        assert engine.result("files", home / "images" / "a") == "of node"
        assert "Read-only" in engine.result("files", home / "images" / "a", text="b")
        assert engine.result("files", home / "out" / "b", text="new") == "3"
        engine.accepted("waits")
        (waiting,) = until(lambda: engine.ask("GET", NODES).json["waiting"])
        assert (waiting["labels"], waiting["fits"]) == (["folder.absent=yes"], False)


def test_reserved_instances_come_back_after_the_loss_of_their_node(tmp_path: Path, port: int) -> None:
    listen = {"FUNCTIOND_EXECUTOR__NODES__LISTEN": f"127.0.0.1:{port}"}
    with engine_on(tmp_path / "data", **ON_NODES, **listen) as engine, agent(engine, port) as process:
        engine.create("echo", ECHO)
        assert engine.ask("PUT", f"{BASE}/{urn_of('echo')}/reservedinstances", {"count": 2}).status == 200
        until(lambda: engine.metric("functiond_node_instances") == 2)

        os.kill(descendants(process.pid)[0], signal.SIGKILL)

        until(lambda: engine.metric("functiond_fence_seconds_count") == 1)
        until(lambda: engine.metric("functiond_node_instances") == 2)


def test_logs_are_live_and_a_cancelled_run_leaves_no_process(tmp_path: Path, port: int) -> None:
    with cluster(tmp_path, port) as engine:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        path = f"{BASE}/{urn_of('held')}/async-invocations/{request_id}/logs"
        until(lambda: b"it runs" in engine.ask("GET", path).body)

        assert engine.cancel("held", request_id).status < 300
        assert engine.record("held", request_id, wait=30)["error_code"] == 4208
        until(lambda: engine.metric("functiond_node_instances") == 0)


def test_a_lost_node_uses_no_attempt_and_is_named_in_the_history(tmp_path: Path, port: int) -> None:
    listen = {"FUNCTIOND_EXECUTOR__NODES__LISTEN": f"127.0.0.1:{port}"}
    with engine_on(tmp_path / "data", **ON_NODES, **listen) as engine, agent(engine, port) as process:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        os.kill(descendants(process.pid)[0], signal.SIGKILL)  # its parent-death signal ends all others
        begun(tmp_path, 2)
        (tmp_path / "gate").touch()

        record = engine.record("held", request_id, wait=60)

        assert record["status"] == "SUCCESS"
        (lost,) = [attempt for attempt in record["attempts"] if attempt["error_code"] == 150500]
        assert (lost["node"], lost["error_message"].startswith("node n1 was lost")) == ("n1", True)


def test_an_engine_that_was_killed_runs_its_work_again_when_the_node_has_ended_it(tmp_path: Path, port: int) -> None:
    with cluster(tmp_path, port) as engine:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        engine.kill()
        engine.start()
        begun(tmp_path, 2)
        (tmp_path / "gate").touch()

        assert engine.record("held", request_id, wait=60)["status"] == "SUCCESS"
        assert begun(tmp_path, 2) == [request_id] * 2


def test_a_drained_agent_exits_after_its_last_run(tmp_path: Path, port: int) -> None:
    listen = {"FUNCTIOND_EXECUTOR__NODES__LISTEN": f"127.0.0.1:{port}"}
    with engine_on(tmp_path / "data", **ON_NODES, **listen) as engine, agent(engine, port) as process:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)

        assert engine.ask("POST", f"{NODES}/n1/drain").status == 200
        assert states(engine) == ["draining"]
        (tmp_path / "gate").touch()

        assert engine.record("held", request_id, wait=30)["status"] == "SUCCESS"
        assert process.wait(30) == 0
        until(lambda: states(engine) == ["absent"])


def test_work_waits_in_the_queue_for_room_and_readiness_names_what_fits_nowhere(tmp_path: Path, port: int) -> None:
    with cluster(tmp_path, port, "--cpus", "0.4", "--memory", "256") as engine:
        engine.create("held", HELD)
        engine.create("large", ECHO, memory_size=1024)
        ids = [engine.accepted("held", held_event(tmp_path)) for _ in range(3)]
        begun(tmp_path, 1)
        large = engine.accepted("large")
        until(lambda: "no node could hold an instance of 1024 MB" in engine.ask("GET", "/readyz").json["nodes"])
        until(lambda: engine.metric("functiond_running") == 1)
        assert engine.record("large", large)["status"] == "WAIT"
        (tmp_path / "gate").touch()

        assert {engine.record("held", each, wait=60)["status"] for each in ids} == {"SUCCESS"}


@contextmanager
def networks() -> Iterator[str]:
    """Make two network namespaces with a cable between them. Yield the name of the second.

    The calling thread is in the first until the block ends, with the processes that it starts. The ends of the cable
    are ``cable`` at 10.0.0.1 and ``eth0`` at 10.0.0.2. The kernel removes the cable with the second namespace.

    The network of the machine does not change. Otherwise Chromium of other tests would end its requests.
    """
    name = f"fd{os.getpid()}"
    inside = ("ip", "-n", name)
    commands: list[tuple[str, ...]] = [
        ("ip", "link", "set", "lo", "up"),
        ("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", name),
        ("ip", "addr", "add", "10.0.0.1/30", "dev", "cable"),
        ("ip", "link", "set", "cable", "up"),
        (*inside, "addr", "add", "10.0.0.2/30", "dev", "eth0"),
        (*inside, "link", "set", "eth0", "up"),
        (*inside, "link", "set", "lo", "up"),
    ]
    subprocess.run(("ip", "netns", "add", name), check=True)
    with open("/proc/thread-self/ns/net") as earlier:
        try:
            _call("unshare", _NEW_NETWORK)
            for command in commands:
                subprocess.run(command, check=True)
            yield name
        finally:
            _call("setns", earlier.fileno(), _NEW_NETWORK)
            subprocess.run(("ip", "netns", "delete", name), check=False)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library that os has from Python 3.12 on."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


@needs("ip")
@pytest.mark.skipif(os.geteuid() != 0, reason="this machine gives no network namespaces to ordinary users")
@needs_network
def test_a_cut_network_ends_the_run_before_the_next_begins(tmp_path: Path, port: int) -> None:
    with networks() as name:
        listen = {"FUNCTIOND_EXECUTOR__NODES__LISTEN": f"10.0.0.1:{port}"}
        prefix = ("ip", "netns", "exec", name)
        with (
            engine_on(tmp_path / "data", **ON_NODES, **listen) as engine,
            agent(engine, port, host="10.0.0.1", prefix=prefix),
        ):
            engine.create("living", LIVING)
            request_id = engine.accepted("living", held_event(tmp_path))
            begun(tmp_path, 5)
            subprocess.run(("ip", "link", "set", "cable", "down"), check=True)
            until(lambda: states(engine) == ["lost"])
            until(lambda: engine.metric("functiond_fence_seconds_count") == 1)
            subprocess.run(("ip", "link", "set", "cable", "up"), check=True)
            until(lambda: len(set(signs(tmp_path))) == 2)
            (tmp_path / "gate").touch()
            record = engine.record("living", request_id, wait=60)

    runs = signs(tmp_path)
    assert record["status"] == "SUCCESS"
    assert runs == sorted(runs, key=runs.index)  # no sign of the first run after one of the second


def signs(folder: Path) -> list[str]:
    """Return the runs that gave the signs of life, in the order of these."""
    return (folder / "runs").read_text().split()
