"""Time from a request to the first line of its handler in one project, alone and beside the queued work of another one.

The project is measured alone in an engine of its own, at the same time, because the speed of a machine changes within
seconds. Where the queued work takes all processors, it is measured alone just before.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import fill, results
from bench.latency import HANDLER
from bench.load import STAMP, Job, Percentiles, percentiles
from bench.server import NOOP, Engine, ServerFailed, engine, load

ROWS = 1_000_000
RATE, CONNECTIONS = 100, 8
WARM_UP = 1.0  #: seconds
OTHER = "other"  #: project that is measured
FUNCTIONS = 4  #: of the project with queued work, in the case of long runs
SETTLED = 3.0  #: seconds for which the queued work runs before the measurement
SLEEPING = "import time\ndef handler(event, context):\n    time.sleep({})\n    return ''\n"
SATURATED = "no-ops"
#: Handlers of the project with queued work, by case.
CASES = {"queued": SLEEPING.format(0.1), "long runs": SLEEPING.format(60), SATURATED: NOOP}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        for name in CASES:
            progress(f"fairness: {name}, beside {options.scaled(ROWS):,} queued invocations")
            with scratch(options) as directory:
                solo, beside = _measure(name, directory, options)
            figures |= {
                f"solo p50, {name}": solo.p50,
                f"solo p99, {name}": solo.p99,
                f"p50, {name}": beside.p50,
                f"p99, {name}": beside.p99,
                f"p99 / solo, {name}": beside.p99 / solo.p99,
            }
        yield figures


def _measure(name: str, folder: Path, options: Options) -> tuple[Percentiles, Percentiles]:
    """Return the times alone and beside the queued work, in two engines."""
    full, empty = folder / "full", folder / "empty"
    paths = _deploy(full, CASES[name])
    _deploy(empty, CASES[name])
    for function_id in range(1, FUNCTIONS + 1):
        anyio.run(partial(fill, full, function_id, options.scaled(ROWS) // FUNCTIONS))
    with engine(full) as busy, engine(empty) as quiet, ThreadPoolExecutor(1) as thread:
        alone = partial(_ask, empty, quiet, paths[-1], options.seconds)
        for directory, server in ((full, busy), (empty, quiet)):
            _ask(directory, server, paths[-1], WARM_UP)
        before = alone() if name == SATURATED else None
        for path in paths[:-1]:
            busy.call("PATCH", f"{path}/controls", {"paused": False})
        time.sleep(SETTLED)
        meanwhile = None if before else thread.submit(alone)
        beside = _ask(full, busy, paths[-1], options.seconds)
        return before or meanwhile.result(), beside  # type: ignore[union-attr]


def _deploy(directory: Path, source: str) -> list[str]:
    """Create paused functions of one project, and one of another. Return their paths in the API."""
    with engine(directory) as server:
        paths = [server.deploy(f"busy{number}", source) for number in range(FUNCTIONS)]
        for path in paths:
            server.call("PATCH", f"{path}/controls", {"paused": True})
        return [*paths, server.deploy("stamp", HANDLER, project=OTHER)]


def _ask(directory: Path, server: Engine, function: str, seconds: float) -> Percentiles:
    """Send requests at random moments. Return how long their handlers took to begin."""
    since, path = time.time_ns(), f"{function}/invocations-async"
    body = f'{{"due": {STAMP}, "pad": "{"x" * 160}"}}'
    job = Job(port=server.port, path=path, body=body, connections=CONNECTIONS, rate=RATE, seconds=seconds)
    report = load(job)
    server.wait_for_all(function, report.last)
    stamps = [json.loads(result) for result in results(directory) if result.startswith(b"{")]
    delays = array("d", ((stamp["began"] - stamp["due"]) / 1e9 for stamp in stamps if stamp["due"] > since))
    if len(delays) != report.requests:
        raise ServerFailed(f"only {len(delays)} of {report.requests} requests reached their handler")
    return percentiles(delays)


SCENARIO = Scenario(
    name="fairness",
    title=f"POST → first line of the handler of one project beside another one's work, {RATE} arrivals/s, open loop",
    figures=tuple(
        figure
        for name in CASES
        for figure in (
            Figure(name=f"p99 / solo, {name}", unit="ratio of times", at_most=None if name == SATURATED else 1.5),
            Figure(name=f"p99, {name}", unit="ms"),
            Figure(name=f"solo p99, {name}", unit="ms"),
            Figure(name=f"p50, {name}", unit="ms"),
            Figure(name=f"solo p50, {name}", unit="ms"),
        )
    ),
    rounds=rounds,
    note="queued: runs of 0.1 s; long runs: 60 s, in all slots of the project; no-ops take all processors as well",
)
