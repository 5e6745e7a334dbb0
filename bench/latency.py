"""Latency from a request to the first line of its handler, while requests arrive at a fixed mean rate (open loop).

Latency counts from the moment when a request was due to be sent, so that a stall of the engine counts for every request
that it delayed.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Generator

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import results
from bench.load import STAMP, Job, Report, percentiles
from bench.server import Engine, ServerFailed, engine, load

RATE = 500
CONNECTIONS = 64
WARM_UP = 500
HANDLER = """import time

def handler(event, context):
    now = time.time_ns()
    return {"began": now, "due": event["due"]}
"""


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        with scratch(options) as directory:
            with engine(directory, profile=options.profile) as server:
                function = server.deploy("stamp", HANDLER)
                progress("latency: warming up")
                _warm_up(server, function, options.scaled(WARM_UP))
                progress(f"latency: {RATE} arrivals a second for {options.seconds:g} s")
                report = load(_job(server, function, options))
                server.wait_for_all(function, report.last)
            yield _figures(report, [json.loads(result) for result in results(directory)])


def _warm_up(server: Engine, function: str, count: int) -> None:
    job = Job(
        port=server.port,
        path=f"{function}/invocations-async",
        body='{"due": 0}',
        connections=CONNECTIONS,
        count=count,
    )
    server.wait_for_all(function, load(job).last)


def _job(server: Engine, function: str, options: Options) -> Job:
    return Job(
        port=server.port,
        path=f"{function}/invocations-async",
        body=f'{{"due": {STAMP}, "pad": "{"x" * 160}"}}',
        connections=CONNECTIONS,
        rate=RATE,
        seconds=options.seconds,
    )


def _figures(report: Report, stamps: list[dict[str, int]]) -> Round:
    delays = array("d", ((stamp["began"] - stamp["due"]) / 1e9 for stamp in stamps if stamp["due"]))
    if len(delays) != report.requests:
        raise ServerFailed(f"only {len(delays)} of {report.requests} requests reached their handler")
    start = percentiles(delays)
    return {
        "start p50": start.p50,
        "start p99": start.p99,
        "start p99.9": start.p999,
        "start worst": start.worst,
        "answer p50": report.latency.p50,
        "answer p99": report.latency.p99,
        "generator lag p99": report.lag.p99,
        "requests": report.requests,
    }


SCENARIO = Scenario(
    name="latency",
    title=f"POST → first line of the handler, {RATE} arrivals/s at random moments, open loop",
    figures=(
        Figure(name="start p50", unit="ms", at_most=3),
        Figure(name="start p99", unit="ms", at_most=10),
        Figure(name="start p99.9", unit="ms"),
        Figure(name="start worst", unit="ms"),
        Figure(name="answer p50", unit="ms to the 202"),
        Figure(name="answer p99", unit="ms to the 202"),
        Figure(name="generator lag p99", unit="ms, included in the above"),
        Figure(name="requests", unit="measured"),
    ),
    rounds=rounds,
    note="measured from the moment a request was due to be sent; includes the disk's fsync",
)
