"""Cost of the status log: the rate from end to end with it, against that of a run without it before or after."""

from __future__ import annotations

import time
from collections.abc import Generator

from bench.end_to_end import BODY, CONNECTIONS, PER_SECOND, WARM_UP
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import NOOP, Engine, ServerFailed, engine, load, until

LINES = 3  #: of an invocation that succeeds at the first attempt


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    logged_first = False
    while True:
        figures: Round = {}
        for logged in (logged_first, not logged_first):
            progress(f"status_log: {'with' if logged else 'without'} the log")
            figures |= _run(options, logged=logged)
        figures["with / without"] = figures["with"] / figures["without"]
        logged_first = not logged_first
        yield figures


def _run(options: Options, *, logged: bool) -> Round:
    warm, count = options.scaled(WARM_UP), options.scaled(int(PER_SECOND * options.seconds))
    with scratch(options) as directory, engine(directory, profile=options.profile) as server:
        function = server.deploy("noop", NOOP)
        server.call("PUT", f"{function}/async-invoke-config", {"enable_async_status_log": logged})
        send(server, function, warm)
        before = cpu_of(server.pid)
        rate = count / send(server, function, count)
        used = cpu_of(server.pid).since(before)
        name = "with" if logged else "without"
        figures = {
            name: rate,
            f"engine loop {name}": used.loop / count * 1e6,
            f"engine threads {name}": used.threads / count * 1e6,
        }
        if not logged:
            return figures
        ended, lines = time.perf_counter(), LINES * (warm + count)
        until(lambda: server.metric("status_log_lines_total") >= lines, f"{lines} lines were not written")
        if server.metric("status_log_lines_total") != lines or server.metric("status_log_dropped_total"):
            raise ServerFailed(f"{server.metric('status_log_lines')} lines were written instead of {lines}")
        return figures | {"lag": time.perf_counter() - ended}


def send(server: Engine, function: str, count: int) -> float:
    """Send requests for the function. Return the seconds until the outcomes of all are on disk."""
    path = f"{function}/invocations-async"
    report = load(Job(port=server.port, path=path, body=BODY, connections=CONNECTIONS, count=count))
    server.wait_for_all(function, report.last)
    return time.perf_counter() - report.began


SCENARIO = Scenario(
    name="status_log",
    title="POST → handler in a warm instance → outcome on disk, with a line for each state",
    figures=(
        Figure(name="with / without", unit="of the rate", at_least=0.85),
        Figure(name="with", unit="invocations/s"),
        Figure(name="without", unit="invocations/s"),
        Figure(name="engine loop with", unit="µs CPU/invocation"),
        Figure(name="engine loop without", unit="µs CPU/invocation"),
        Figure(name="engine threads with", unit="µs CPU/invocation"),
        Figure(name="engine threads without", unit="µs CPU/invocation"),
        Figure(name="lag", unit="s from the last outcome to the last line"),
    ),
    rounds=rounds,
    note="all lines are counted; the two runs of a round alternate in their order",
)
