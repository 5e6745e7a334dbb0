"""Cost of an engine without requests: memory, wake-ups of its threads, and CPU time."""

from __future__ import annotations

import time
from collections.abc import Generator

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.machine import cpu_of, memory_mb, wakeups
from bench.server import engine

SECONDS = 10.0
#: Seconds after the start that are not measured, for work deferred by the start.
SETTLING = 1.0


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        with scratch(options) as directory, engine(directory) as server:
            time.sleep(SETTLING)
            progress(f"idle: watching for {SECONDS * options.scale:g} s")
            woken, used = wakeups(server.pid), cpu_of(server.pid)
            time.sleep(SECONDS * options.scale)
            woken, used = wakeups(server.pid) - woken, cpu_of(server.pid).since(used)
            memory = memory_mb(server.pid)
        yield {"memory": memory, "wake-ups": woken, "processor": (used.loop + used.threads) * 1000}


SCENARIO = Scenario(
    name="idle",
    title=f"an engine without work, {SECONDS:g} s",
    figures=(
        Figure(name="memory", unit="MB resident", at_most=70),
        Figure(name="wake-ups", unit="in all threads", at_most=5),
        Figure(name="processor", unit="ms"),
    ),
    rounds=rounds,
)
