"""Cold starts: time from the request to the handler of a new Python instance, by method of starting instances."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Generator

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.instances import RESULT
from bench.server import ServerFailed

COUNT = 100
_SANDBOXES = 20  #: number of sandboxes; fewer, because each loads its own interpreter


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        for sandbox in ("spawn", "fork"):
            progress(f"cold_start: {sandbox}")
            figures |= _both(sandbox, ask(options, sandbox, options.scaled(COUNT))["next"])
        for sandbox, program in (("bubblewrap", "bwrap"), ("project", "pasta")):
            if shutil.which(program):
                progress(f"cold_start: {sandbox}")
                times = ask(options, sandbox, options.scaled(_SANDBOXES))
                figures |= _both(f"{sandbox} first", times["first"]) | _both(f"{sandbox} next", times["next"])
        yield figures


def ask(options: Options, sandbox: str, count: int) -> dict[str, list[float]]:
    """Run ``bench.instances`` in a separate process, and return the times that it measured, in seconds."""
    with scratch(options) as directory:
        command = [sys.executable, "-m", "bench.instances", str(directory), sandbox, str(count)]
        done = subprocess.run(command, capture_output=True, timeout=300)
        if done.returncode:
            raise ServerFailed(f"bench.instances failed for {sandbox}: {done.stderr.decode()[-1000:]}")
        times: dict[str, list[float]] = json.loads((directory / RESULT).read_bytes())
    return times


def _both(name: str, times: list[float]) -> Round:
    ordered = sorted(times)
    return {
        f"{name} p50": statistics.median(ordered) * 1e3,
        f"{name} p95": ordered[int(len(ordered) * 0.95)] * 1e3,
    }


SCENARIO = Scenario(
    name="cold_start",
    title="from the request to the handler of a new Python instance",
    figures=(
        Figure(name="spawn p50", unit="ms"),
        Figure(name="spawn p95", unit="ms"),
        Figure(name="fork p50", unit="ms", at_most=5),
        Figure(name="fork p95", unit="ms"),
        Figure(name="bubblewrap first p50", unit="ms", at_most=60),
        Figure(name="bubblewrap first p95", unit="ms"),
        Figure(name="bubblewrap next p50", unit="ms", at_most=8),
        Figure(name="bubblewrap next p95", unit="ms"),
        Figure(name="project first p50", unit="ms", at_most=60),
        Figure(name="project first p95", unit="ms"),
        Figure(name="project next p50", unit="ms", at_most=8),
        Figure(name="project next p95", unit="ms"),
    ),
    rounds=rounds,
    note="measured at the pool: no HTTP, no journal; with cgroup limits if the host supports them",
)
