"""Rate of invocations from end to end: HTTP request, handler in a running instance, and outcome on disk."""

from __future__ import annotations

import time
from collections.abc import Generator

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.load import Job, Report
from bench.machine import cpu_of
from bench.server import NOOP, Engine, ServerFailed, engine, load

CONNECTIONS = 64
BODY = '{"k": "' + "x" * 191 + '"}'
WARM_UP = 1_000
PER_SECOND = 6_000  #: requests sent per second of ``--seconds``


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        with scratch(options) as directory, engine(directory, profile=options.profile) as server:
            function = server.deploy("noop", NOOP)
            progress("end_to_end: warming up")
            warm = options.scaled(WARM_UP)
            _run(server, function, warm)
            count = options.scaled(int(PER_SECOND * options.seconds))
            progress(f"end_to_end: {count:,} invocations")
            measured = _measure(server, function, count)
            ended = server.ended(function)
        if ended != warm + count:
            raise ServerFailed(f"{ended} of {warm + count} invocations ended as SUCCESS")
        yield measured


def _measure(server: Engine, function: str, count: int) -> Round:
    commits, carried = server.commits()
    before = cpu_of(server.pid)
    report = _run(server, function, count)
    seconds = time.perf_counter() - report.began
    used = cpu_of(server.pid).since(before)
    all_commits, all_carried = server.commits()
    return {
        "end to end": count / seconds,
        "accepted": report.rate,
        "commit": (all_carried - carried) / (all_commits - commits),
        "engine loop": used.loop / count * 1e6,
        "engine threads": used.threads / count * 1e6,
        "children": used.children / count * 1e6,
        "load generator": report.cpu_micros,
    }


def _run(server: Engine, function: str, count: int) -> Report:
    """Send ``count`` requests for the function, and return when the outcomes of all are on disk."""
    job = Job(
        port=server.port,
        path=f"{function}/invocations-async",
        body=BODY,
        connections=CONNECTIONS,
        count=count,
    )
    report = load(job)
    server.wait_for_all(function, report.last)
    return report


SCENARIO = Scenario(
    name="end_to_end",
    title="POST → handler in a warm instance → outcome on disk, 64 connections, 200 bytes",
    figures=(
        Figure(name="end to end", unit="invocations/s", at_least=5_000),
        Figure(name="accepted", unit="requests/s, at the same time"),
        Figure(name="commit", unit="appends, starts, ends per commit"),
        Figure(name="engine loop", unit="µs CPU/invocation"),
        Figure(name="engine threads", unit="µs CPU/invocation"),
        Figure(name="children", unit="µs CPU/invocation"),
        Figure(name="load generator", unit="µs CPU/invocation"),
    ),
    rounds=rounds,
    note="each invocation is checked to have ended as SUCCESS; load generator and instances share the machine",
)
