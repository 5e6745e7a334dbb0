"""Scenario ``soak``: spans of load, measurements of the quiet engine, and the count of what is left behind."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from random import Random

from msgspec import Struct

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.machine import memory_mb
from bench.server import NOOP, PROJECT, Engine, ServerFailed, engine, until
from bench.soak.clients import Functions, Seen, find_states, load
from bench.soak.remains import descriptors, files_left, groups_left, kill_one, marker_of, processes_left

CONNECTIONS = 200
KILL_EVERY = 0.5  #: seconds between two kills of a child
WARM_UP = 0.5  #: share of the load that comes before the first measurement
READERS = 20  #: connections that ask for the states of all accepted requests
FUNCTIONS = {
    "soak-noop": NOOP,
    "soak-fails": "def handler(event, context):\n    raise ValueError('as asked')\n",
    "soak-sleeps": "import time\ndef handler(event, context):\n    time.sleep(60)\n",
    "soak-logs": "def handler(event, context):\n    for _ in range(2000):\n        print('x' * 100)\n",
    "soak-files": "def handler(event, context):\n    open('/tmp/left', 'w').write('x' * 100000)\n    return 'left'\n",
}
WEIGHTS = {"soak-noop": 0.6, "soak-fails": 0.15, "soak-sleeps": 0.01, "soak-logs": 0.12, "soak-files": 0.12}
SETTINGS = {
    "FUNCTIOND_EXECUTOR__IDLE": "1",
    "FUNCTIOND_STORAGE__FREE_SPACE": "0",
    "FUNCTIOND_RETRY__BASE": "0.1",
    "FUNCTIOND_HTTP__SYNC_TIMEOUT": "5",
}
FINAL = ("SUCCESS", "FAIL", "DISCARD")


class Quiet(Struct, frozen=True, kw_only=True):
    """Resources of an engine that has no work and no instance."""

    memory: float  #: MB
    descriptors: list[str]  #: their targets


class Killed(Struct):
    """Children of an engine that were killed."""

    marker: str = ""  #: that they carried
    count: int = 0


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    seconds = max(2.0, options.seconds)
    random = Random(options.rounds)
    while True:
        with scratch(options) as directory:
            data, seen, killed = directory / "data", Seen(), Killed()
            with engine(data, profile=options.profile, **SETTINGS) as server:
                functions = _prepare(server)
                _span(server, functions, seen, killed, seconds * WARM_UP, random)
                before = _quiet(server, random)
                progress(f"soak: {seconds:g} s of load on {CONNECTIONS} connections")
                _span(server, functions, seen, killed, seconds * (1 - WARM_UP), random)
                after = _quiet(server, random)
                states = asyncio.run(find_states(server.port, seen.accepted, READERS))
            if new := Counter(after.descriptors) - Counter(before.descriptors):
                progress(f"soak: descriptors that were not open before: {dict(new)}")
            if not killed.marker:
                raise ServerFailed("no child of the engine was seen")
            files = files_left(data)
            left = {
                "processes left": processes_left(killed.marker),
                "control groups left": groups_left(killed.marker),
                "temporary files left": len(files),
            }
            if files:
                progress(f"soak: temporary files left: {', '.join(files[:10])}")
        yield {
            "answers": sum(seen.statuses.values()),
            "accepted": len(seen.accepted),
            "not ended": len(seen.accepted) - sum(states[state] for state in FINAL),
            "lost answers": seen.lost,
            "kills": killed.count,
            "memory before": before.memory,
            "memory after": after.memory,
            "memory growth": 100 * (after.memory / before.memory - 1),
            "descriptors before": len(before.descriptors),
            "descriptors after": len(after.descriptors),
            "descriptors more": len(after.descriptors) - len(before.descriptors),
            **left,
        }


def _prepare(server: Engine) -> Functions:
    """Create the functions, their asynchronous settings, and a timer."""
    paths = {name: _deploy(server, name, source) for name, source in FUNCTIONS.items()}
    settings = {"max_async_event_age_in_seconds": 600, "max_async_retry_attempts": 1}
    for name in ("soak-fails", "soak-sleeps"):
        server.call("PUT", f"{paths[name]}/async-invoke-config", settings)
    urn = paths["soak-noop"].rpartition("/")[2]
    timer = {"name": "soak", "schedule_type": "Cron", "schedule": "@every 1s"}
    body = {"trigger_type_code": "TIMER", "trigger_status": "ACTIVE", "event_data": timer}
    server.call("POST", f"/v2/{PROJECT}/fgs/triggers/{urn}", body)
    return Functions(port=server.port, paths=paths, weights=WEIGHTS)


def _deploy(server: Engine, name: str, source: str) -> str:
    body = {
        "func_name": name,
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 3 if name == "soak-sleeps" else 20,
        "memory_size": 128,
        "code_type": "inline",
        "func_code": {"file": base64.b64encode(source.encode()).decode()},
        "strategy_config": {"concurrency": 4 if name == "soak-sleeps" else 400, "concurrent_num": 1},
    }
    server.call("POST", f"/v2/{PROJECT}/fgs/functions", body)
    return f"/v2/{PROJECT}/fgs/functions/urn:fss:local-1:{PROJECT}:function:default:{name}"


def _span(server: Engine, functions: Functions, seen: Seen, killed: Killed, seconds: float, random: Random) -> None:
    """Run one span of load, during which children of the engine are killed."""
    with _killing(server, killed, Random(random.random())):
        asyncio.run(load(functions, seen, CONNECTIONS, seconds, random))


@contextmanager
def _killing(server: Engine, killed: Killed, random: Random) -> Iterator[None]:
    """Kill children of the engine at random while the block runs, and count them in ``killed``."""
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(random.expovariate(1 / KILL_EVERY)):
            killed.marker = killed.marker or marker_of(server.pid)
            killed.count += kill_one(server.pid, random)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _quiet(server: Engine, random: Random) -> Quiet:
    """Disable the timer, wait until all work has ended and no child is left, and measure the engine."""
    _switch_timer(server, "DISABLED")
    until(lambda: server.metric("backlog_invocations") == 0, "accepted work has not ended")
    until(lambda: _instances(server) == 0, "instances have not exited")
    # Empty sandboxes stay for a minute, each with descriptors of the engine.
    until(lambda: not kill_one(server.pid, random), "children of the engine have not exited")
    until(lambda: _settled(server), "the number of descriptors does not settle")
    quiet = Quiet(memory=memory_mb(server.pid), descriptors=descriptors(server.pid))
    _switch_timer(server, "ACTIVE")
    return quiet


def _instances(server: Engine) -> float:
    text: str = server.call("GET", "/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("functiond_instances{"))


def _settled(server: Engine) -> bool:
    """Return whether the number of descriptors stays the same for a second. Connections of clients are closed late."""
    seen = set()
    for _ in range(10):
        seen.add(len(descriptors(server.pid)))
        time.sleep(0.1)
    return len(seen) == 1


def _switch_timer(server: Engine, status: str) -> None:
    triggers = server.call("GET", f"/v2/{PROJECT}/fgs/triggers/{_NOOP}")
    trigger = triggers[0]
    server.call("PUT", f"/v2/{PROJECT}/fgs/triggers/{_NOOP}/TIMER/{trigger['trigger_id']}", {"trigger_status": status})


_NOOP = f"urn:fss:local-1:{PROJECT}:function:default:soak-noop"

SCENARIO = Scenario(
    name="soak",
    title=f"{CONNECTIONS} connections of mixed clients, while children of the engine are killed",
    figures=(
        Figure(name="answers", unit="HTTP"),
        Figure(name="accepted", unit="202"),
        Figure(name="not ended", unit="accepted requests", at_most=0, required=True),
        Figure(name="lost answers", unit="HTTP", at_most=0, required=True),
        Figure(name="kills", unit="children"),
        Figure(name="memory before", unit="MB resident"),
        Figure(name="memory after", unit="MB resident"),
        Figure(name="memory growth", unit="%", at_most=10),
        Figure(name="descriptors before", unit="open"),
        Figure(name="descriptors after", unit="open"),
        Figure(name="descriptors more", unit="open", at_most=0, required=True),
        Figure(name="processes left", unit="after the stop", at_most=0, required=True),
        Figure(name="control groups left", unit="after the stop", at_most=0, required=True),
        Figure(name="temporary files left", unit="after the stop", at_most=0, required=True),
    ),
    rounds=rounds,
    note="resident memory and descriptors: of the engine without work, after half of the load and at the end",
)
