"""Placement process on a Ray cluster of two nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.ray_cluster import CPUS, PlacementProcess, RayCluster, books, placement, ray_cluster
from tests.support.waiting import in_own_task, until

pytestmark = pytest.mark.nodes
SMALL = {"cpus": 0.3, "memory": 128 << 20}
WHOLE = {"cpus": CPUS, "memory": 128 << 20}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[RayCluster]:
    async with in_own_task(ray_cluster()) as cluster, placement(cluster) as process:
        await process.nodes(2)
        yield cluster


@pytest.fixture
async def process(shared: RayCluster) -> AsyncIterator[PlacementProcess]:
    """Return a placement process of its own for each test."""
    async with placement(shared) as process:
        yield process


def stat(pid: int) -> tuple[str, int]:
    """Return the state and the parent of a process."""
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


def has_exited(pid: int) -> bool:
    try:
        return stat(pid)[0] == "Z"
    except OSError:
        return True


async def supervise(process: PlacementProcess, node: str, folder: Path) -> int:
    """Run a command as supervision 1 until it is killed. Return its process."""
    file = folder / "pid"
    command = ["sh", "-c", f"echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000"]
    process.send(supervise=node, number=1, command=command, input="")
    await until(file.exists)
    return int(file.read_text())


async def test_the_first_messages_name_versions_and_nodes(process: PlacementProcess) -> None:
    ready = (await process.receive("ready"))["ready"]
    nodes = await process.nodes(2)

    assert ready["node"] in [node["id"] for node in nodes.values()]  # both are on this machine
    assert tuple(map(int, ready["ray"].split(".")[:2])) >= (2, 52)
    assert nodes["b"]["cpus"] == CPUS
    assert nodes["b"]["memory"] == 4_000_000_000
    assert [nodes[zone]["gpus"] for zone in "ab"] == [0, 2]
    assert not nodes["b"]["draining"]


async def test_a_grant_keeps_to_labels_and_avoids_nodes(process: PlacementProcess) -> None:
    nodes = await process.nodes(2)
    process.send(grant=1, **SMALL, labels={"zone": "b"})
    process.send(grant=2, **SMALL, avoid=[nodes["b"]["id"], "f" * 56])

    assert await process.receive("granted", 1) == {"granted": 1, "node": nodes["b"]["id"], "gpus": []}
    assert await process.receive("granted", 2) == {"granted": 2, "node": nodes["a"]["id"], "gpus": []}


async def test_a_grant_that_ray_does_not_understand_fails(process: PlacementProcess) -> None:
    process.send(grant=1, **SMALL, labels={"no label": "b"})

    assert "no label" in (await process.receive("failed", 1))["reason"]


async def test_grants_with_gpus_tell_which(process: PlacementProcess) -> None:
    for number in (1, 2):
        process.send(grant=number, **SMALL, gpus=1)

    assert sorted([(await process.receive("granted", number))["gpus"] for number in (1, 2)]) == [["0"], ["1"]]


async def test_a_waiting_grant_is_demand_until_it_is_released(shared: RayCluster, process: PlacementProcess) -> None:
    async with books(shared) as record:
        await record.read()
        await process.receive("ready")
        process.send(grant=1, **SMALL, labels={"zone": "c"})
        asked = time.monotonic()
        await until(lambda: _waiting(record, 1))
        assert time.monotonic() - asked < 10  # the documented second, on a machine with other load

        process.send(release=1)
        await until(lambda: _waiting(record, 0))


async def _waiting(record: Any, count: int) -> bool:
    return bool((await record.read())["waiting"] == count)


async def test_released_capacity_is_granted_to_those_that_wait(process: PlacementProcess) -> None:
    for number in (1, 2):
        process.send(grant=number, **WHOLE)
        await process.receive("granted", number)
    process.send(grant=3, **WHOLE)
    process.send(release=1)

    await process.receive("granted", 3)


async def test_many_grants_wait_and_are_held_at_once(process: PlacementProcess) -> None:
    for number in range(2):
        process.send(grant=number, **WHOLE)
        await process.receive("granted", number)
    for number in range(100, 700):
        process.send(grant=number, cpus=0.002, memory=1 << 20)
    for number in range(2):
        process.send(release=number)

    assert {(await process.receive("granted"))["granted"] for _ in range(600)} == set(range(100, 700))


async def test_requests_that_are_withdrawn_at_once_cost_no_capacity(process: PlacementProcess) -> None:
    await process.nodes(2)
    for number in range(100, 200):
        process.send(grant=number, **SMALL)
        await asyncio.sleep(number % 7 / 1000)  # Ray needs 2 ms
        process.send(release=number)
    for number in (1, 2):
        process.send(grant=number, **WHOLE)

    assert {(await process.receive("granted", number))["granted"] for number in (1, 2)} == {1, 2}


async def test_a_supervisor_runs_a_command_with_input_and_without_settings_of_ray(process: PlacementProcess) -> None:
    node = (await process.nodes(2))["b"]["id"]
    script = "cat; env; yes | head -c 9000; echo >&2 the end; exit 3"
    for number, text in ((1, script), (2, "cat; env")):
        process.send(supervise=node, number=number, command=["sh", "-c", text], input="from the engine\n")
    ended = await process.receive("ended", 1)
    output = (await process.receive("ended", 2))["output"]

    assert ended["status"] == 3
    assert ended["output"].endswith("y\nthe end\n")
    assert len(ended["output"]) == 8192
    assert output.startswith("from the engine\n")
    assert "\nPATH=" in output
    assert not any(line.startswith(("RAY_", "CUDA_")) for line in output.split("\n"))


async def test_a_command_that_cannot_start_ends_with_the_reason(process: PlacementProcess) -> None:
    process.send(supervise=(await process.nodes(2))["b"]["id"], number=1, command=["/no/program"], input="")

    ended = await process.receive("ended", 1)
    assert ended["status"] is None
    assert ended["output"] == "[Errno 2] No such file or directory: '/no/program'"


async def test_the_command_is_killed_when_the_engine_ends_it(process: PlacementProcess, tmp_path: Path) -> None:
    pid = await supervise(process, (await process.nodes(2))["b"]["id"], tmp_path)
    process.send(end=1)

    assert (await process.receive("ended", 1))["status"] is None
    await until(lambda: has_exited(pid))


async def test_the_command_is_killed_with_its_supervisor(process: PlacementProcess, tmp_path: Path) -> None:
    pid = await supervise(process, (await process.nodes(2))["b"]["id"], tmp_path)
    os.kill(stat(pid)[1], signal.SIGKILL)

    assert (await process.receive("ended", 1))["status"] is None
    await until(lambda: has_exited(pid))


@pytest.mark.parametrize("end", ["end of input", "kill"])
async def test_commands_and_grants_end_with_the_placement_process(
    shared: RayCluster, process: PlacementProcess, end: str, tmp_path: Path
) -> None:
    nodes = await process.nodes(2)
    pid = await supervise(process, nodes["b"]["id"], tmp_path)
    for number in (1, 2):
        process.send(grant=number, **WHOLE)
        await process.receive("granted", number)
    process.send(grant=3, **WHOLE)
    if end == "kill":
        process.process.kill()
    else:
        assert process.process.stdin is not None
        process.process.stdin.close()

    assert await process.process.wait() == (-signal.SIGKILL if end == "kill" else 0)
    await until(lambda: has_exited(pid))
    async with placement(shared) as other, books(shared) as record:
        for number in (1, 2):
            other.send(grant=number, **WHOLE)
            await other.receive("granted", number)
        assert (await record.read())["waiting"] == 0


async def test_a_node_with_a_supervisor_is_not_idle(
    shared: RayCluster, process: PlacementProcess, tmp_path: Path
) -> None:
    node = (await process.nodes(2))["b"]["id"]
    async with books(shared) as record:

        async def idle() -> bool:
            return bool((await record.read())["idle"][node] > 0)

        await until(idle)
        await supervise(process, node, tmp_path)
        await until(lambda: _not(idle))
        process.send(end=1)
        await until(idle)


async def _not(look: Any) -> bool:
    return not await look()


async def test_raylets_that_are_killed_are_reported(tmp_path: Path) -> None:
    async with ray_cluster() as cluster, placement(cluster) as process:
        nodes = await process.nodes(2)
        pid = await supervise(process, nodes["b"]["id"], tmp_path)
        os.kill(cluster.pid("raylet", "b"), signal.SIGKILL)

        assert (await process.receive("ended", 1))["status"] is None
        await until(lambda: has_exited(pid))
        assert list(await process.nodes(1)) == ["a"]
        process.send(supervise=nodes["b"]["id"], number=2, command=["true"], input="")
        assert (await process.receive("ended", 2))["status"] is None
        process.send(grant=1, **WHOLE)
        assert (await process.receive("granted", 1))["node"] == nodes["a"]["id"]

        cluster.kill_raylet_of_head()
        await process.problem("lost this machine")
        assert await process.process.wait() == 1


async def test_a_head_that_does_not_answer_is_reported_before_ray_ends_the_process(tmp_path: Path) -> None:
    async with ray_cluster(reconnect_timeout=8) as cluster, placement(cluster) as process:
        pid = await supervise(process, (await process.nodes(2))["b"]["id"], tmp_path)
        head = cluster.pid("gcs_server")
        os.kill(head, signal.SIGSTOP)
        await process.problem("has not answered")
        process.send(grant=1, **SMALL)
        os.kill(head, signal.SIGCONT)
        await process.problem("")
        await process.receive("granted", 1)

        os.kill(head, signal.SIGKILL)
        await process.problem("has not answered")
        assert not has_exited(pid)
        assert await process.process.wait() != 0
        await until(lambda: has_exited(pid))


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"RAY_AUTH_TOKEN": ""}, "there is no token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "token is missing or incorrect"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/no/file"}, "/no/file"),
    ],
    ids=["none", "wrong", "no file"],
)
async def test_the_process_needs_the_token_of_the_cluster(
    shared: RayCluster, environment: dict[str, str], reason: str
) -> None:
    async with placement(shared, **environment) as process:
        assert reason in (await process.receive("refused"))["refused"]
        assert await process.process.wait() == 1


async def test_the_token_is_read_from_a_file(shared: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(shared.environment["RAY_AUTH_TOKEN"])

    async with placement(shared, RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(file)) as process:
        await process.receive("ready")


async def test_a_cluster_that_admits_everyone_is_refused() -> None:
    async with ray_cluster("", second=False) as cluster, placement(cluster, RAY_AUTH_TOKEN="f" * 64) as process:
        assert "admits everyone" in (await process.receive("refused"))["refused"]


async def test_an_address_at_which_nothing_listens_is_refused(tmp_path: Path) -> None:
    async with placement(RayCluster(tmp_path, "f" * 64)) as process:
        assert "cannot connect" in (await process.receive("refused"))["refused"]
