"""Rate of accepted requests, compared with an empty POST on Starlette. Each request is on disk before its 202.

The function's only instance sleeps, so that accepted invocations are queued and not executed.
"""

from __future__ import annotations

from collections.abc import Generator
from statistics import mean

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import HELD, Engine, Process, engine, load, starlette

CONNECTIONS = (1, 16, 64, 256)
MAIN = 64  #: connections of the cell with the target and the CPU figures
BODY = '{"k": "' + "x" * 191 + '"}'


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        with scratch(options) as directory, engine(directory, profile=options.profile) as server:
            path = server.deploy("held", HELD, instances=1) + "/invocations-async"
            for connections in CONNECTIONS:
                # Measured before and after the cell it is compared with, because a machine's speed varies.
                bare = [_bare(options, progress)] if connections == MAIN else []
                progress(f"accept: {connections} connections")
                figures |= _cell(server, path, connections, options)
                if bare:
                    bare.append(_bare(options, progress))
                    figures["starlette 64"] = mean(bare)
        figures["accept / starlette 64"] = figures["accept 64"] / figures["starlette 64"]
        yield figures


def _bare(options: Options, progress: Progress) -> float:
    """Return the requests per second that an empty Starlette application answers."""
    progress("accept: empty Starlette POST")
    with starlette() as server:
        return load(_job(server, "/", MAIN, options)).rate


def _cell(server: Engine, path: str, connections: int, options: Options) -> Round:
    commits, carried = server.commits()
    before = cpu_of(server.pid)
    report = load(_job(server, path, connections, options))
    used = cpu_of(server.pid).since(before)
    all_commits, all_carried = server.commits()
    figures = {f"accept {connections}": report.rate, f"p99 {connections}": report.latency.p99}
    if connections == MAIN:
        figures["p50 64"] = report.latency.p50
        figures["commit"] = (all_carried - carried) / (all_commits - commits)
        figures["engine loop"] = used.loop / report.requests * 1e6
        figures["engine threads"] = used.threads / report.requests * 1e6
        figures["load generator"] = report.cpu_micros
    return figures


def _job(server: Process, path: str, connections: int, options: Options) -> Job:
    return Job(port=server.port, path=path, body=BODY, connections=connections, seconds=options.seconds)


SCENARIO = Scenario(
    name="accept",
    title="POST …/invocations-async, 200 bytes, keep-alive, answered when fsynced",
    figures=(
        Figure(name="accept / starlette 64", unit="ratio of rates", at_least=0.5),
        Figure(name="starlette 64", unit="requests/s"),
        *(Figure(name=f"accept {n}", unit="requests/s") for n in CONNECTIONS),
        Figure(name="p50 64", unit="ms"),
        *(Figure(name=f"p99 {n}", unit="ms") for n in CONNECTIONS),
        Figure(name="commit", unit="requests per commit at 64"),
        Figure(name="engine loop", unit="µs CPU/request at 64"),
        Figure(name="engine threads", unit="µs CPU/request at 64"),
        Figure(name="load generator", unit="µs CPU/request at 64"),
    ),
    rounds=rounds,
    note="numbers after a name are connections; accepted invocations wait for an instance that sleeps",
)
