"""Latency of the 202 while a million waiting invocations of another function are purged (open loop).

The load runs before the purge, then in parts of equal length until the purge is complete. The part with the highest
percentile counts.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import fill
from bench.load import Job, Report
from bench.recovery import FUNCTION, check_backlog
from bench.server import NOOP, Engine, engine, load

ROWS = 1_000_000
RATE = 500
CONNECTIONS = 64


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        with scratch(options) as folder:
            with engine(folder / "data") as server:
                paused, noop = server.deploy("paused", NOOP), server.deploy("noop", NOOP)
                server.call("PATCH", f"{paused}/controls", {"paused": True})
            rows = options.scaled(ROWS)
            progress(f"purge: queueing {rows:,} invocations")
            anyio.run(partial(fill, folder / "data", FUNCTION, rows))
            with engine(folder / "data", profile=options.profile) as server:
                check_backlog(server, rows)
                progress(f"purge: {RATE} arrivals a second for {options.seconds:g} s")
                before = _load(server, noop, options)
                progress("purge: the same while all that waits is purged")
                yield _measured(server, paused, noop, before, options)


def _measured(server: Engine, paused: str, noop: str, before: Report, options: Options) -> Round:
    with ThreadPoolExecutor(1) as thread:
        began = time.perf_counter()
        purged: Future[tuple[int, float]] = thread.submit(_purge, server, paused)
        during = [_load(server, noop, options)]
        while not purged.done():
            during.append(_load(server, noop, options))
    count, ended = purged.result()
    worst = max(during, key=lambda report: report.latency.p99)
    return {
        "p99": before.latency.p99,
        "p99 beside": worst.latency.p99,
        "rise": worst.latency.p99 - before.latency.p99,
        "p50 beside": worst.latency.p50,
        "worst beside": max(report.latency.worst for report in during),
        "purged": count,
        "rate": count / (ended - began),
    }


def _purge(server: Engine, function: str) -> tuple[int, float]:
    """Make steps until nothing waits. Return the number of purged invocations, and the time of the last step."""
    count, marker = 0, "0"
    while marker:
        step = server.call("POST", f"{function}/async-invocations/cancel", {"marker": marker})
        count, marker = count + len(step["cancelled"]), step["next_marker"]
    return count, time.perf_counter()


def _load(server: Engine, function: str, options: Options) -> Report:
    path = f"{function}/invocations-async"
    job = Job(port=server.port, path=path, body="{}", connections=CONNECTIONS, rate=RATE, seconds=options.seconds)
    return load(job)


SCENARIO = Scenario(
    name="purge",
    title=f"POST …/invocations-async beside a purge, {RATE} arrivals/s, open loop",
    figures=(
        Figure(name="p99", unit="ms to the 202, without a purge"),
        Figure(name="p99 beside", unit="ms to the 202, in the worst part of the purge"),
        Figure(name="rise", unit="ms of p99", at_most=50),
        Figure(name="p50 beside", unit="ms"),
        Figure(name="worst beside", unit="ms"),
        Figure(name="purged", unit="invocations"),
        Figure(name="rate", unit="purged invocations/s"),
    ),
    rounds=rounds,
    note="one client makes the steps of the purge one after another",
)
