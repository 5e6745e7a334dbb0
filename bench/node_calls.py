"""Cost of calls to instances on nodes, measured at the pool, without HTTP and without a journal.

Run in a separate process as ``python -m bench.node_calls DIRECTORY MEASUREMENT COUNT``. Writes a JSON object with lists
of figures to the file ``RESULT`` in the directory. Measurements:

    calls    CPU of the loop for ``COUNT`` calls of 16 busy instances on this machine and on a node, in turns; and for
             a quarter of that, one after the other
    starts   ``COUNT`` starts of further instances on a node, from the request to the handler
    starts on Ray  the same on a node of a Ray cluster
    growth   CPU of the loop for ``COUNT`` calls of 1,000 instances on 2 and on 50 nodes that run no code, in turns
    memory   resident memory of an engine with ``COUNT`` such nodes and 1,000 instances
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop
from anyio import TASK_STATUS_IGNORED

from bench.agents import agents, free_port, ray_settings, ray_variables
from bench.machine import memory_mb
from engine import __version__
from engine.code.store import CodeSource, CodeStore
from engine.errors import Deferred
from engine.executors.local.choice import IsolationOptions
from engine.executors.nodes.options import NodesOptions
from engine.executors.pool import Pool, PoolOptions, open_pool
from engine.model import CodePackage, Function, Invocation
from engine.runtimes.interpreters import Interpreters, own_interpreter
from tests.support.ray_cluster import cluster_to_start

SOURCE = "import time\n\n\ndef handler(event, context):\n    return time.time()\n"
RESULT = "figures.json"
BUSY = 16  #: instances in ``calls``
FEW, MANY, INSTANCES = 2, 50, 1_000  #: nodes and instances in ``growth``
_TURNS = 6  #: alternating parts of a measurement
_WARMING = 3  #: starts that are not measured
_BODY = b'{"k": "' + b"x" * 191 + b'"}'
_RUNTIME = f"Python3.{sys.version_info[1]}"


class NoSessions:
    """Sessions that are not stored, because no other engine follows (protocol ``NodeSessions``)."""

    async def add(self, session: str) -> None: ...

    async def remove(self, session: str) -> None: ...

    def ended(self, session: str) -> None: ...


class Bench:
    """Pools of one measurement, and the code that they run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = CodeStore(directory / "code")
        self.package: CodePackage
        self.keys = 0

    async def add_code(self) -> None:
        source = CodeSource(kind="inline", file=base64.b64encode(SOURCE.encode()).decode())
        self.package = await self.store.add(source, handler="index.handler", runtime=_RUNTIME)

    @asynccontextmanager
    async def pool(self, name: str, nodes: NodesOptions | None = None) -> AsyncIterator[Pool]:
        folder = self.directory / name
        folder.mkdir(parents=True)
        options = PoolOptions(
            tmp=folder / "tmp",
            log_dir=folder / "logs",
            marker=f"bench-{self.directory.name}-{name}",
            idle=3600.0,
            sandbox=IsolationOptions(isolation="process", fork_server="start"),
            nodes=nodes,
        )
        interpreters = Interpreters(python=own_interpreter().path)
        async with open_pool(options, code_path=self.store.folder, interpreters=interpreters) as pool:
            yield pool

    @asynccontextmanager
    async def pool_of_nodes(
        self, name: str, names: Sequence[str], port: int = 0, **more: Any
    ) -> AsyncIterator[tuple[Pool, int]]:
        """Yield a pool that admits agents, and its port for them. ``more`` are options of its nodes."""
        port = port or free_port()
        folder = self.directory / name / "nodes"
        listening = NodesOptions(
            version=__version__,
            listen=f"127.0.0.1:{port}",
            folder=folder,
            agents=dict.fromkeys(names, ()),
            lease=10.0,
            local="never",
            **more,
        )
        async with self.pool(name, listening) as pool:
            assert pool.nodes is not None
            running = asyncio.create_task(pool.nodes.run(NoSessions(), lambda: 3600.0, task_status=TASK_STATUS_IGNORED))
            try:
                await until(lambda: all((folder / f"{name}.token").exists() for name in names))
                yield pool, port
            finally:
                running.cancel()

    def function(self, number: int, memory: int = 128) -> Function:
        """Return a function. Each ``number``, and each ``memory`` (MB), needs an instance of its own."""
        values: dict[str, Any] = {
            "function_id": 1, "revision": number, "memory_size": memory, "project": "p", "package": "default",
            "name": "f", "handler": "index.handler", "timeout": 30, "code": self.package, "runtime": _RUNTIME,
        }  # fmt: skip
        return Function(**values)

    def invocation(self) -> Invocation:
        self.keys += 1
        request_id = "00000000-0000-7000-8000-000000000001"
        return Invocation(key=self.keys, request_id=request_id, function_id=1, payload=_BODY)

    async def call(self, pool: Pool, callers: int, calls: int) -> float:
        """Keep ``callers`` instances busy. Return the microseconds of CPU of the loop's thread of each call."""
        function, each = self.function(0), max(1, calls // callers)

        async def one() -> None:
            for _ in range(each):
                outcome = await pool.execute(function, self.invocation())
                if outcome.code:
                    raise RuntimeError(f"a call failed: {outcome.code} {outcome.message}")

        began = time.thread_time()
        await asyncio.gather(*(one() for _ in range(callers)))
        return (time.thread_time() - began) / (each * callers) * 1e6

    async def in_turns(self, pools: dict[str, Pool], callers: int, calls: int) -> dict[str, list[float]]:
        for pool in pools.values():
            await self.call(pool, callers, callers * 2)
        costs: dict[str, list[float]] = {name: [] for name in pools}
        for _ in range(_TURNS):
            for name, pool in pools.items():
                costs[name].append(await self.call(pool, callers, calls // _TURNS))
        return costs


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110  (the state of other processes)
            await asyncio.sleep(0.01)


async def wait_until_joined(pool: Pool, count: int) -> None:
    assert pool.nodes is not None
    nodes = pool.nodes
    await until(lambda: sum(node.state == "ready" for node in nodes.report().nodes) == count)


@asynccontextmanager
async def one_node(bench: Bench, name: str, instances: int) -> AsyncIterator[Pool]:
    """Yield a pool whose instances run on one node with a real agent."""
    async with bench.pool_of_nodes(name, ["n1"]) as (pool, port):
        with agents(bench.directory / name, port, ["n1"], bench.directory, instances=instances) as (agent,):
            agent.start()
            await wait_until_joined(pool, 1)
            yield pool
            await pool.close()  # while the agent can tell that nothing is left


@asynccontextmanager
async def node_of_ray(bench: Bench, instances: int) -> AsyncIterator[Pool]:
    """Yield a pool whose instances run on the only node of a Ray cluster."""
    with cluster_to_start(cpus=instances) as ray:
        port = free_port()
        values = ray_settings(ray, port, {"a": port}, bench.directory)
        await ray.start(second=False)
        os.environ.update(ray_variables(ray))
        async with bench.pool_of_nodes("ray", [], port, **values) as (pool, _):
            while pool.nodes is not None and not any(node.state == "ready" for node in pool.nodes.report().nodes):
                with suppress(Deferred):  # the agent starts meanwhile
                    await pool.execute(bench.function(-1), bench.invocation())
            yield pool
            await pool.close()


@asynccontextmanager
async def idle_nodes(bench: Bench, count: int) -> AsyncIterator[Pool]:
    """Yield a pool with ``count`` nodes that answer without running code, in a process of their own."""
    names = [f"n{number}" for number in range(count)]
    async with bench.pool_of_nodes(f"idle{count}", names) as (pool, port):
        tokens = bench.directory / f"idle{count}" / "nodes"
        command = [sys.executable, "-m", "bench.fake_agents", str(port), str(tokens), str(-(-INSTANCES // count))]
        process = subprocess.Popen(command)  # noqa: ASYNC220  (takes a millisecond)
        try:
            await wait_until_joined(pool, count)
            yield pool
            await pool.close()
        finally:
            process.kill()
            process.wait()


async def measure(directory: Path, measurement: str, count: int) -> dict[str, list[float]]:
    bench = Bench(directory)
    await bench.add_code()
    async with AsyncExitStack() as stack:
        if measurement == "calls":
            local = await stack.enter_async_context(bench.pool("local"))
            remote = await stack.enter_async_context(one_node(bench, "remote", BUSY))
            pools = {"local": local, "nodes": remote}
            alone = await bench.in_turns(pools, 1, count // 4)
            costs = await bench.in_turns(pools, BUSY, count)
            return costs | {f"{name} alone": values for name, values in alone.items()}
        if measurement == "starts":
            pool = await stack.enter_async_context(one_node(bench, "remote", 4 * (count + _WARMING)))
            return {"next": await _starts(bench, pool, count)}
        if measurement == "starts on Ray":
            return {"next": await _starts(bench, await stack.enter_async_context(node_of_ray(bench, count)), count)}
        if measurement == "growth":
            few = await stack.enter_async_context(idle_nodes(bench, FEW))
            many = await stack.enter_async_context(idle_nodes(bench, MANY))
            return await bench.in_turns({"few": few, "many": many}, INSTANCES, count)
        pool = await stack.enter_async_context(idle_nodes(bench, count))
        await bench.call(pool, INSTANCES, INSTANCES * 5)
        return {"memory": [memory_mb(os.getpid())]}


async def _starts(bench: Bench, pool: Pool, count: int) -> list[float]:
    """Return the seconds from a request to the handler of its new instance, when the node has a template."""
    times = []
    for number in range(count + _WARMING):
        began = time.time()
        outcome = await pool.execute(bench.function(number), bench.invocation())
        times.append(float(outcome.result) - began)
    return times[_WARMING:]


def ask(directory: Path, measurement: str, count: int) -> dict[str, list[float]]:
    """Run a measurement in a process of its own, and return its figures."""
    command = [sys.executable, "-m", "bench.node_calls", str(directory), measurement, str(count)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"bench.node_calls failed for {measurement}: {done.stderr.decode()[-3000:]}")
    figures: dict[str, list[float]] = json.loads((directory / RESULT).read_bytes())
    return figures


def main() -> None:
    directory, measurement, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    (directory / RESULT).write_text(json.dumps(uvloop.run(measure(directory, measurement, count))))


if __name__ == "__main__":
    main()
