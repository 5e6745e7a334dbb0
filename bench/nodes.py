"""Functions on nodes: throughput by nodes, cost of a call, starts, the time until a lost node is fenced, and growth.

All nodes are agents on loopback. Functions on this machine are measured beside them, in turns.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

from bench import node_calls
from bench.agents import Agent, agents, free_port, settings, states, wait_until_ready
from bench.end_to_end import BODY, CONNECTIONS
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import NOOP, Engine, engine, load, until

SLEEPS = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return ''\n"
NAMES = ("n1", "n2", "n3")
ON_EACH = 5  #: instances of a node in the measurement of throughput
CALLS, CALLS_IN_GROWTH, STARTS, NOOPS = 24_000, 60_000, 40, 6_000
SLOTS = 16  #: instances of the no-op
LEASE = 1.0  #: seconds, of the node that is stopped


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    parts = (_throughput, _calls, _end_to_end, _starts, _fence, _growth)
    while True:
        figures: Round = {}
        for part in parts:
            progress(f"nodes: {part.__name__.strip('_').replace('_', ' ')}")
            with scratch(options) as folder:
                figures |= part(folder, options)
        yield figures


def _throughput(folder: Path, options: Options) -> Round:
    port, data = free_port(), folder / "data"
    rates: list[float] = []
    with (
        engine(data, **settings(port, NAMES)) as server,
        agents(data, port, NAMES, folder, instances=ON_EACH) as made,
    ):
        function = server.deploy("sleeps", SLEEPS)
        for count in range(1, len(NAMES) + 1):
            made[count - 1].start()
            wait_until_ready(server, NAMES[:count])
            each = max(1, round(options.seconds * 20)) * ON_EACH * count
            until(partial(_warm, server, function, ON_EACH * count), "not all instances of the nodes started")
            rates.append(each / send(server, function, each))
    return {
        "1 node": rates[0],
        "2 nodes": rates[1],
        "3 nodes": rates[2],
        "second node": rates[1] / rates[0],
        "third node": rates[2] / rates[0],
    }


def _warm(server: Engine, function: str, count: int) -> bool:
    """Send some work. Return whether ``count`` instances have started for it."""
    send(server, function, count * 8)
    return sum(int(node["instances"]) for node in states(server)) >= count


def send(server: Engine, function: str, count: int) -> float:
    """Invoke the function ``count`` times. Return the seconds until the outcomes of all are on disk."""
    path = f"{function}/invocations-async"
    report = load(Job(port=server.port, path=path, body=BODY, connections=CONNECTIONS, count=count))
    server.wait_for_all(function, report.last)
    return time.perf_counter() - report.began


def _calls(folder: Path, options: Options) -> Round:
    costs = node_calls.ask(folder, "calls", options.scaled(CALLS))
    medians = {name: statistics.median(values) for name, values in costs.items()}
    return {
        "call, pipe": medians["local"],
        "call, node": medians["nodes"],
        "call, node / pipe": medians["nodes"] / medians["local"],
        "one call, node / pipe": medians["nodes alone"] / medians["local alone"],
    }


def _end_to_end(folder: Path, options: Options) -> Round:
    """Measure an engine with instances on its machine, and one with the same instances on a node, in turns."""
    port, count = free_port(), options.scaled(NOOPS)
    slots = {"FUNCTIOND_EXECUTOR__SLOTS": str(SLOTS)}
    nodes = settings(port, ["n1"], slots=str(SLOTS))
    with (
        engine(folder / "local", **slots) as local,
        engine(folder / "nodes", **nodes) as remote,
        agents(folder / "nodes", port, ["n1"], folder, instances=SLOTS) as (agent,),
    ):
        agent.start()
        wait_until_ready(remote, ["n1"])
        servers = {"local": local, "nodes": remote}
        functions = {name: server.deploy("noop", NOOP) for name, server in servers.items()}
        rates: dict[str, list[float]] = {"local": [], "nodes": []}
        for name, server in servers.items():
            send(server, functions[name], options.scaled(1_000))
        before = cpu_of(remote.pid)
        for _ in range(3):
            for name, server in servers.items():
                rates[name].append(count / 3 / send(server, functions[name], count // 3))
        used = cpu_of(remote.pid).since(before)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    cost = used.loop / (count // 3 * 3)
    return {
        "end to end, local": medians["local"],
        "end to end, nodes": medians["nodes"],
        "end to end, nodes / local": medians["nodes"] / medians["local"],
        "engine loop": cost * 1e6,
        "loop is full at": 1 / cost,
    }


def _starts(folder: Path, options: Options) -> Round:
    times = sorted(node_calls.ask(folder, "starts", options.scaled(STARTS))["next"])
    return {"start p50": statistics.median(times) * 1e3, "start p95": times[int(len(times) * 0.95)] * 1e3}


def _fence(folder: Path, options: Options) -> Round:
    """Stop supervisor and agent, so that the node reports nothing. The fence then follows from the lease alone."""
    port, data = free_port(), folder / "data"
    with (
        engine(data, **settings(port, ["n1"], lease=str(LEASE))) as server,
        agents(data, port, ["n1"], folder, instances=ON_EACH) as (agent,),
    ):
        agent.start()
        wait_until_ready(server, ["n1"])
        send(server, server.deploy("noop", NOOP), 1)
        agent.signal(signal.SIGSTOP, agent.pid, *agent.processes())
        until(partial(_fenced, server), "the node was not fenced")
        _kill(agent)
        return {"fenced after the lease": server.metric("fence_seconds_sum") - LEASE}


def _fenced(server: Engine) -> bool:
    return server.metric("fence_seconds_count") >= 1


def _kill(agent: Agent) -> None:
    agent.signal(signal.SIGKILL, *agent.processes(), agent.pid)
    agent.wait()


def _growth(folder: Path, options: Options) -> Round:
    for name in ("calls", "few", "many"):
        (folder / name).mkdir()
    costs = node_calls.ask(folder / "calls", "growth", options.scaled(CALLS_IN_GROWTH))
    few, many = statistics.median(costs["few"]), statistics.median(costs["many"])
    few_mb = node_calls.ask(folder / "few", "memory", node_calls.FEW)["memory"][0]
    many_mb = node_calls.ask(folder / "many", "memory", node_calls.MANY)["memory"][0]
    return {
        "call, 2 nodes": few,
        "call, 50 nodes": many,
        "call, 50 / 2 nodes": many / few,
        "memory of a node": (many_mb - few_mb) / (node_calls.MANY - node_calls.FEW),
    }


SCENARIO = Scenario(
    name="nodes",
    title="functions on nodes: agents on loopback, instances of 128 MB",
    figures=(
        Figure(name="1 node", unit="invocations/s of 50 ms, 5 instances a node"),
        Figure(name="2 nodes", unit="invocations/s"),
        Figure(name="3 nodes", unit="invocations/s"),
        Figure(name="second node", unit="of the rate of one", at_least=1.8),
        Figure(name="third node", unit="of the rate of one", at_least=2.6),
        Figure(name="call, pipe", unit="µs CPU of the loop, 16 busy instances"),
        Figure(name="call, node", unit="µs CPU of the loop"),
        Figure(name="call, node / pipe", unit="ratio of CPU", at_most=1.6),
        Figure(name="one call, node / pipe", unit="ratio of CPU, 1 busy instance"),
        Figure(name="end to end, local", unit="invocations/s of a no-op"),
        Figure(name="end to end, nodes", unit="invocations/s"),
        Figure(name="end to end, nodes / local", unit="of the rate", at_least=0.65),
        Figure(name="engine loop", unit="µs CPU/invocation, with nodes"),
        Figure(name="loop is full at", unit="invocations/s"),
        Figure(name="start p50", unit="ms to the handler of a further instance", at_most=30),
        Figure(name="start p95", unit="ms"),
        Figure(name="fenced after the lease", unit="s, of a node that is stopped", at_most=0.5),
        Figure(name="call, 2 nodes", unit="µs CPU of the loop, 1,000 instances"),
        Figure(name="call, 50 nodes", unit="µs CPU of the loop, 1,000 instances"),
        Figure(name="call, 50 / 2 nodes", unit="ratio of CPU", at_most=1.3),
        Figure(name="memory of a node", unit="MB of the engine", at_most=1.0),
    ),
    rounds=rounds,
    note="rates are of async invocations with outcomes on disk; calls are measured at the pool; growth runs no code",
)
