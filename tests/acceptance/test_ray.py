"""Functions on a Ray cluster of two nodes on loopback, from outside: requests to the engine, and faults of Ray."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from bench.soak.remains import groups_left
from engine.executors.nodes.report import NodesReport
from engine.storage.data_directory import marker_of
from tests.acceptance.engine_process import (
    BASE,
    ECHO,
    EngineProcess,
    begun,
    descendants,
    engine_on,
    held_event,
    until,
    urn_of,
)
from tests.acceptance.test_nodes import HELD, NODES
from tests.support.engine_process import ROOT
from tests.support.ports import free_port
from tests.support.programs import needs
from tests.support.ray_cluster import RayCluster, books, ray_cluster
from tests.support.waiting import in_own_task
from tests.support.waiting import until as wait_until

pytestmark = pytest.mark.nodes
#: Each node of the cluster has a folder of its own in AGENT_DIR, though all are on this machine.
COMMAND = f"""sh -c 'cd {ROOT} && exec {sys.executable} -m engine agent --data-dir "$AGENT_DIR" "$@"' agent"""
LINGER = 2
#: Returns all that a function finds of Ray: processes, variables, and readable files with the token.
LOOK = """
import os, pathlib

def handler(event, context):
    found = [name for name in os.environ if name.startswith("RAY_")]
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        command = (process / "cmdline").read_text()
        if "ray" in command.lower() or "agent" in command:
            found.append(command)
    for folder, _, files in os.walk(event["home"]):
        found += [os.path.join(folder, name) for name in files]
    return [found, os.environ.get("CUDA_VISIBLE_DEVICES")]
"""


SETTINGS = """
[executor.nodes.needs]
"project1/held" = ["zone=b"]
"project1/nowhere" = ["zone=c"]

[executor.nodes.gpus.nvidia-t4]
memory = 16384
labels = ["zone=b"]
"""


@contextmanager
def engine_with(address: str, python: str | Path, folder: Path, **settings: str) -> Iterator[EngineProcess]:
    """Run an engine with a Ray cluster. ``settings`` are those of the section ``executor``, or variables of Ray."""
    (folder / "functiond.toml").write_text(SETTINGS)
    executor = {
        "NODES__LISTEN": f"127.0.0.1:{free_port()}",
        "NODES__RAY": address,
        "NODES__PYTHON": str(python),
        "NODES__COMMAND": COMMAND,
        "NODES__LOCAL": "never",
        "NODES__LEASE": "2",
        "NODES__LINGER": str(LINGER),
        "IDLE": "1",
    }
    values = {f"FUNCTIOND_EXECUTOR__{name}": value for name, value in executor.items()}
    with engine_on(
        folder / "data", **{**values, "FUNCTIOND_CONFIG": str(folder / "functiond.toml"), **settings}
    ) as engine:
        yield engine


@contextmanager
def engine_of(cluster: RayCluster, folder: Path, **settings: str) -> Iterator[EngineProcess]:
    """Run an engine that uses a cluster. ``settings`` are those of the section ``executor``."""
    values = {f"FUNCTIOND_EXECUTOR__{name}": value for name, value in settings.items()}
    with engine_with(cluster.address, cluster.python, folder, **cluster.environment, **values) as engine:
        yield engine


def nodes(engine: EngineProcess) -> dict[str, Any]:
    """Return the nodes that are in use or alive, by their zone."""
    return {node["labels"][0].partition("=")[2]: node for node in engine.ask("GET", NODES).json["nodes"]}


def states(engine: EngineProcess) -> dict[str, str]:
    return {zone: node["state"] for zone, node in nodes(engine).items()}


def readiness(engine: EngineProcess) -> str:
    return str(engine.ask("GET", "/readyz").json["nodes"])


def notes(engine: EngineProcess) -> list[str]:
    return list(msgspec.convert(engine.ask("GET", NODES).json, NodesReport).notes)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def call(engine: EngineProcess, name: str, event: object) -> Any:
    return engine.ask("POST", f"{BASE}/{urn_of(name)}/invocations", event).json


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[RayCluster]:
    async with in_own_task(ray_cluster()) as cluster:
        yield cluster


async def test_work_of_a_node_whose_raylet_was_killed_runs_again_on_the_next(tmp_path: Path) -> None:
    async with ray_cluster() as cluster:
        with engine_of(cluster, tmp_path) as engine:
            engine.create("held", HELD)
            request_id = engine.accepted("held", held_event(tmp_path))
            begun(tmp_path, 1)
            first = nodes(engine)["b"]["name"]
            os.kill(cluster.pid("raylet", "b"), signal.SIGKILL)
            until(lambda: cluster.processes["b"].poll() is not None)
            cluster.start_node("b")
            begun(tmp_path, 2)
            (tmp_path / "gate").touch()

            record = engine.record("held", request_id, wait=30)

            assert record["status"] == "SUCCESS"
            (lost,) = [attempt for attempt in record["attempts"] if attempt["error_code"] == 150500]
            assert lost["node"] == first
            assert nodes(engine)["b"]["name"] != first
            until(lambda: states(engine)["b"] == "idle")


@needs("bwrap")
def test_a_function_sees_its_gpu_and_nothing_of_ray(shared: RayCluster, tmp_path: Path) -> None:
    home = Path(shared.environment["HOME"])
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text(shared.environment["RAY_AUTH_TOKEN"])
    settings = {"ISOLATION": "auto", "NETWORK": "none"}
    with engine_of(shared, tmp_path, **settings) as engine:
        engine.create("look", LOOK, gpu_type="nvidia-t4", gpu_memory=8192)

        assert call(engine, "look", {"home": str(home)})[0] == []
        assert call(engine, "look", {"home": str(home)})[1] in ("0", "1")
        assert nodes(engine)["b"]["gpus_used"] == 0.5
        engine.create("more", LOOK, gpu_type="nvidia-t4", gpu_memory=16385)
        assert "at most 16384" in str(call(engine, "more", {}))


def test_running_work_goes_on_while_the_head_is_away_and_no_new_work_is_placed(
    shared: RayCluster, tmp_path: Path
) -> None:
    with engine_of(shared, tmp_path) as engine:
        engine.create("held", HELD)
        engine.create("echo", ECHO)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        os.kill(shared.pid("gcs_server"), signal.SIGSTOP)
        try:
            until(lambda: "head has not answered" in readiness(engine))
            waiting = engine.accepted("echo", {})
            until(lambda: "1 start of 128 MB" in " ".join(notes(engine)))
            (tmp_path / "gate").touch()
            assert engine.record("held", request_id, wait=30)["status"] == "SUCCESS"
        finally:
            os.kill(shared.pid("gcs_server"), signal.SIGCONT)

        assert engine.record("echo", waiting, wait=60)["status"] == "SUCCESS"
        until(lambda: "head" not in readiness(engine))
        assert begun(tmp_path, 1) == [request_id]


def test_work_runs_again_after_the_placement_process_was_killed(shared: RayCluster, tmp_path: Path) -> None:
    with engine_of(shared, tmp_path) as engine:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        (process,) = (pid for pid in descendants(engine.pid) if b"ray_placement.py" in cmdline(pid))
        os.kill(process, signal.SIGKILL)
        begun(tmp_path, 2)
        (tmp_path / "gate").touch()

        record = engine.record("held", request_id, wait=60)

        assert record["status"] == "SUCCESS"
        assert [attempt["error_code"] for attempt in record["attempts"]].count(150500) == 1


def test_a_signal_to_the_group_of_the_engine_lets_running_work_end(shared: RayCluster, tmp_path: Path) -> None:
    with engine_of(shared, tmp_path) as engine:
        engine.create("held", HELD)
        request_id = engine.accepted("held", held_event(tmp_path))
        begun(tmp_path, 1)
        os.killpg(engine.pid, signal.SIGTERM)
        until(lambda: any("stopping" in line for line in engine.log))
        (tmp_path / "gate").touch()
        assert engine.wait() == 0
        assert groups_left(marker_of(Path(shared.variables["b"]["AGENT_DIR"]), "agent")) == 0
        engine.start()

        assert engine.record("held", request_id, wait=30)["status"] == "SUCCESS"
        assert begun(tmp_path, 1) == [request_id]


async def test_a_raylet_that_does_not_answer_holds_up_starts_until_it_is_given_up(tmp_path: Path) -> None:
    async with ray_cluster() as cluster:
        with engine_of(cluster, tmp_path) as engine:
            engine.create("held", HELD)
            engine.create("echo", ECHO)
            until(lambda: len(states(engine)) == 2)
            os.kill(cluster.pid("raylet", "b"), signal.SIGSTOP)
            engine.accepted("held", held_event(tmp_path))  # fits only there
            request_id = engine.accepted("echo", {})

            until(lambda: "Ray places nothing" in readiness(engine))
            assert engine.record("echo", request_id, wait=60)["status"] == "SUCCESS"
            until(lambda: "Ray places nothing" not in readiness(engine))
            assert nodes(engine)["a"]["instances"] == 1


async def test_ray_knows_the_demand_and_which_nodes_are_idle(shared: RayCluster, tmp_path: Path) -> None:
    with engine_of(shared, tmp_path) as engine:
        engine.create("held", HELD)
        engine.create("nowhere", ECHO)
        async with books(shared) as record:
            (tmp_path / "gate").touch()
            request_id = engine.accepted("held", held_event(tmp_path))
            assert engine.record("held", request_id, wait=60)["status"] == "SUCCESS"
            until(lambda: states(engine)["b"] == "idle")  # its instance has ended, and so has its agent
            (node,) = [node for node in (await record.read())["idle"] if nodes(engine)["b"]["name"][4:] in node]

            async def is_idle() -> bool:
                return bool((await record.read())["idle"][node] > 0)

            await wait_until(is_idle)
            engine.accepted("nowhere", {})

            async def is_demand() -> bool:
                return bool((await record.read())["waiting"] == 1)

            await wait_until(is_demand)
            assert "no node could hold an instance of 128 MB" in readiness(engine)


async def test_a_node_that_ray_drains_ends_its_work_and_gets_no_more(tmp_path: Path) -> None:
    async with ray_cluster() as cluster, books(cluster) as record:
        with engine_of(cluster, tmp_path) as engine:
            engine.create("held", HELD)
            engine.create("echo", ECHO)
            request_id = engine.accepted("held", held_event(tmp_path))
            begun(tmp_path, 1)
            name = nodes(engine)["b"]["name"]
            cluster.drain(*(node for node in (await record.read())["idle"] if node.startswith(name[4:])))
            until(lambda: states(engine)["b"] == "draining")

            assert call(engine, "echo", {"a": 1}) == {"a": 1}
            assert nodes(engine)["a"]["instances"] == 1
            (tmp_path / "gate").touch()
            assert engine.record("held", request_id, wait=30)["status"] == "SUCCESS"
            until(lambda: "b" not in states(engine))  # Ray ends an idle node that it drains


def test_an_agent_that_does_not_start_is_reported_with_the_reason(shared: RayCluster, tmp_path: Path) -> None:
    with engine_of(shared, tmp_path, NODES__COMMAND="sh -c 'echo no functiond here; exit 3' agent") as engine:
        engine.create("held", HELD)
        engine.accepted("held", held_event(tmp_path))

        until(lambda: states(engine).get("b") == "refused")
        assert nodes(engine)["b"]["reason"] == "no functiond here"
