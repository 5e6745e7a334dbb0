"""Cost of forwarded logs: the rate from end to end with them, against that of a run without them before or after."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Generator

from bench.end_to_end import WARM_UP
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.machine import cpu_of
from bench.server import ServerFailed, engine
from bench.status_log import send

COUNT, LINES = 10_000, 3
NAMES, PARTS = ("with", "without"), ("loop", "threads")
TALKS = f"""
def handler(event, context):
    for number in range({LINES}):
        context.getLogger().info("line %d", number)
"""


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    order = [*NAMES]
    while True:
        figures: Round = {}
        for name in order:
            progress(f"forward: {name} forwarded logs")
            figures |= _run(options, name)
        yield figures | {"with / without": figures["with"] / figures["without"]}
        order.reverse()


def _run(options: Options, name: str) -> Round:
    warm, count = options.scaled(WARM_UP), options.scaled(COUNT)
    with scratch(options) as folder:
        file = folder / "lines"
        settings = {"FUNCTIOND_LOGS__FORWARD": "file" if name == "with" else "none", "FUNCTIOND_LOGS__FILE": str(file)}
        with engine(folder / "data", profile=options.profile, **settings) as server:
            function = server.deploy("talks", TALKS)
            send(server, function, warm)
            before = cpu_of(server.pid)
            rate = count / send(server, function, count)
            used = cpu_of(server.pid).since(before)
        texts: defaultdict[str, list[str]] = defaultdict(list)
        for line in map(json.loads, file.read_text().splitlines() if name == "with" else ()):
            texts[line["request_id"]].append(line["text"])
    whole = [f"line {number}" for number in range(LINES)]
    if name == "with" and [*texts.values()] != [whole] * (warm + count):
        raise ServerFailed(f"lines of {len(texts)} runs of {warm + count}, or not whole and in order")
    return {name: rate} | {f"engine {part} {name}": getattr(used, part) / count * 1e6 for part in PARTS}


SCENARIO = Scenario(
    name="forward",
    title=f"POST → handler that logs {LINES} lines in a warm instance → outcome on disk, with logs forwarded to a file",
    figures=(
        Figure(name="with / without", unit="of the rate", at_least=0.95),
        *(Figure(name=name, unit="invocations/s") for name in NAMES),
        *(Figure(name=f"engine {part} {name}", unit="µs CPU/invocation") for part in PARTS for name in NAMES),
    ),
    rounds=rounds,
    note="each run must have all lines in their order; the two runs of a round alternate in their order",
)
