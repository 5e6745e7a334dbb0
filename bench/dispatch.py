"""Round trip to a warm instance: time from calling the pool until the outcome is returned, one call after another."""

from __future__ import annotations

import statistics
from collections.abc import Generator

from bench.cold_start import ask
from bench.harness import Figure, Options, Progress, Round, Scenario

COUNT = 20_000


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        progress("dispatch: round trips")
        times = sorted(ask(options, "dispatch", options.scaled(COUNT))["next"])
        yield {
            "round trip p50": statistics.median(times) * 1e6,
            "round trip p99": times[int(len(times) * 0.99)] * 1e6,
            "one after another": len(times) / sum(times),
        }


SCENARIO = Scenario(
    name="dispatch",
    title="round trip to a warm Python instance",
    figures=(
        Figure(name="round trip p50", unit="µs"),
        Figure(name="round trip p99", unit="µs"),
        Figure(name="one after another", unit="invocations/s"),
    ),
    rounds=rounds,
    note="measured at the pool: no HTTP, no journal, one instance with one request at a time",
)
