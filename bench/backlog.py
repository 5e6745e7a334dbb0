"""Cost of backlogs of different lengths.

Measures the time to choose the next invocation, memory of the engine, and invocations per second while the backlog
shrinks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import drained, fill
from bench.machine import memory_mb
from bench.server import NOOP, ServerFailed, engine, until

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
FUNCTION = 1  #: id of the first function in a new data directory
POPS = 5_000


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        for length in LENGTHS:
            rows = options.scaled(length)
            progress(f"backlog: queueing {rows:,} invocations")
            with scratch(options) as directory:
                figures |= {f"{name} {length:,}": value for name, value in _measure(directory, rows, options).items()}
        shortest, longest = f"{LENGTHS[0]:,}", f"{LENGTHS[-1]:,}"
        figures["growth of memory"] = figures[f"peak memory {longest}"] - figures[f"peak memory {shortest}"]
        figures["pop, longest / shortest"] = figures[f"pop {longest}"] / figures[f"pop {shortest}"]
        yield figures


def _measure(directory: Path, rows: int, options: Options) -> Round:
    with engine(directory) as server:
        function = server.deploy("noop", NOOP)
    anyio.run(partial(fill, directory, FUNCTION, rows))
    figures = {"pop": _pop(directory, min(rows, POPS))}
    with engine(directory) as server:
        figures["memory"] = memory_mb(server.pid)
        time.sleep(options.seconds)
        until(lambda: server.ended(function) > 0, "no queued invocation ended")  # a slow machine may not have begun
        figures["peak memory"] = memory_mb(server.pid, "VmHWM")
    figures["drain"] = drained(directory).rate
    return figures


def _pop(directory: Path, count: int) -> float:
    command = [sys.executable, "-m", "bench.pops", str(directory), str(FUNCTION), str(count)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    if done.returncode:
        raise ServerFailed(f"bench.pops failed: {done.stderr.decode()[-1000:]}")
    return float(json.loads(done.stdout)["pop"])


SCENARIO = Scenario(
    name="backlog",
    title="choosing the next invocation, memory, and draining no-op work, by queued invocations of 200 bytes",
    figures=(
        Figure(name="pop, longest / shortest", unit="ratio of times", at_most=2),
        Figure(name="growth of memory", unit="MB, shortest to longest", at_most=100),
        *(Figure(name=f"pop {n:,}", unit="µs, reads included") for n in LENGTHS),
        *(Figure(name=f"memory {n:,}", unit="MB after the start") for n in LENGTHS),
        *(Figure(name=f"peak memory {n:,}", unit="MB after some draining") for n in LENGTHS),
        *(Figure(name=f"drain {n:,}", unit="invocations/s") for n in LENGTHS),
    ),
    rounds=rounds,
    note="pop: take and release, reads included; drain: cold starts included, most of the time at 1,000",
)
