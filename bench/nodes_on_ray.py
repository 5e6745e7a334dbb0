"""Functions on a Ray cluster on loopback: throughput by nodes, grants, starts, demand, and nodes without work."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import node_calls
from bench.agents import CPU, free_port, ray_settings, ray_variables, settings, states
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.nodes import SLEEPS, send
from bench.server import MAX_WAIT, NOOP, Engine, ServerFailed, engine, until
from tests.support.ray_cluster import CPUS, Books, RayCluster, books, cluster_to_start, placement

ON_EACH = int(CPUS / CPU)  #: instances of 128 MB on a node
GRANTS, STARTS = 100, 20
LINGER, IDLE = 5, 1  #: seconds that agents and instances stay without work
_ENGINE = {"FUNCTIOND_EXECUTOR__IDLE": str(IDLE), "FUNCTIOND_EXECUTOR__NETWORK": "host"}
_TURNS = 3  #: of one node and two


@contextmanager
def _engine(folder: Path, *, second: bool = True) -> Iterator[tuple[Engine, RayCluster]]:
    """Run an engine with one node or two until the block ends."""
    port = free_port()
    with cluster_to_start() as ray:
        values = ray_settings(ray, port, dict.fromkeys("ab", port), folder)
        environment = ray_variables(ray) | settings(port, [], **values, linger=str(LINGER))
        asyncio.run(ray.start(second=second))
        with engine(folder / "data", **environment, **_ENGINE) as server:
            yield server, ray


def _throughput(folder: Path, options: Options) -> Round:
    """Measure one node and two, in turns. The second node is killed after each."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with _engine(folder, second=False) as (server, ray):
        function = server.deploy("sleeps", SLEEPS)
        for _ in range(_TURNS):
            for nodes in rates:
                if nodes == 2:
                    ray.start_node("b")
                until(partial(_warm, server, function, ON_EACH * nodes), "the nodes do not have all instances")
                count = max(1, round(options.seconds * 20)) * ON_EACH * nodes
                rates[nodes].append(count / send(server, function, count))
            os.kill(ray.pid("raylet", "b"), signal.SIGKILL)
            ray.processes["b"].wait(MAX_WAIT)
    one, two = (statistics.median(values) for values in rates.values())
    return {"1 node": one, "2 nodes": two, "second node": two / one}


def _warm(server: Engine, function: str, count: int) -> bool:
    send(server, function, count * 8)
    return _instances(server) == count


def _instances(server: Engine) -> int:
    return sum(int(node["instances"]) for node in states(server))


def _grants(folder: Path, options: Options) -> Round:
    times = sorted(asyncio.run(_ask(options.scaled(GRANTS))))
    return {"grant p50": statistics.median(times) * 1e3, "grant p95": times[int(len(times) * 0.95)] * 1e3}


async def _ask(count: int) -> list[float]:
    times = []
    with cluster_to_start(cpus=count) as ray:  # room for all
        await ray.start()
        async with placement(ray) as process:
            await process.nodes(2)
            for number in range(count):
                began = time.perf_counter()
                process.send(grant=number, cpus=CPU, memory=1 << 20)
                await process.receive("granted", number)
                times.append(time.perf_counter() - began)
    return times


def _record(folder: Path, options: Options) -> Round:
    """Measure when Ray's autoscaler learns of demand, and of nodes without instances."""
    with _engine(folder) as (server, ray):
        return asyncio.run(_follow(server, ray))


async def _follow(server: Engine, ray: RayCluster) -> Round:
    large = server.deploy("large", NOOP, memory=4096)
    small = server.deploy("small", NOOP)
    async with books(ray) as record:
        await record.read()
        send(server, small, 1)
        until(lambda: not _instances(server), "the instance did not end")
        ended = time.perf_counter()
        await _until(record, lambda state: all(state["idle"].values()), "the nodes are not idle")
        idle = time.perf_counter() - ended
        server.call("POST", f"{large}/invocations-async", {})
        asked = time.perf_counter()
        await _until(record, lambda state: state["waiting"] > 0, "the grant is no demand")
        return {"demand": time.perf_counter() - asked, "idle node": idle}


async def _until(record: Books, true: Callable[[dict[str, Any]], bool], problem: str) -> None:
    deadline = time.perf_counter() + MAX_WAIT
    while not true(await record.read()):
        if time.perf_counter() > deadline:
            raise ServerFailed(f"{problem} in {MAX_WAIT:g} s")
        await asyncio.sleep(0.02)


def _starts(folder: Path, options: Options) -> Round:
    times = sorted(node_calls.ask(folder, "starts on Ray", options.scaled(STARTS))["next"])
    return {"start p50": statistics.median(times) * 1e3, "start p95": times[int(len(times) * 0.95)] * 1e3}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        for part in (_throughput, _grants, _starts, _record):
            progress(f"nodes_on_ray: {part.__name__.strip('_')}")
            with scratch(options) as folder:
                figures |= part(folder, options)
        yield figures


SCENARIO = Scenario(
    name="nodes_on_ray",
    title="functions on a Ray cluster: nodes of 2 processors on loopback, instances of 128 MB",
    figures=(
        Figure(name="1 node", unit=f"invocations/s of 50 ms, {ON_EACH} instances a node"),
        Figure(name="2 nodes", unit="invocations/s"),
        Figure(name="second node", unit="of the rate of one", at_least=1.8),
        Figure(name="grant p50", unit="ms, from the placement process"),
        Figure(name="grant p95", unit="ms"),
        Figure(name="start p50", unit="ms to the handler of a further instance"),
        Figure(name="start p95", unit="ms"),
        Figure(name="idle node", unit=f"s after its last instance, with linger = {LINGER}", at_most=LINGER + 5),
        Figure(name="demand", unit="s until a grant that fits nowhere is in Ray's books", at_most=1),
    ),
    rounds=rounds,
    note="the second node is started and killed in turns; demand and idle nodes are as Ray's autoscaler sees them",
)
