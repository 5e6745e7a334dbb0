"""Many functions, each with a timer: memory, start, first page of the list, and CPU time of an engine without work.

The data directory is written at once: copies of one function and of its trigger, half of which have an interval and
half a time of the day. A first start stores the positions of the timers; the second one is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import anyio
import msgspec

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.machine import cpu_of, memory_mb
from bench.server import NOOP, PROJECT, Engine, engine, until
from engine.storage import StorageOptions
from engine.storage.data_directory import locked
from engine.storage.sqlite.database import open_storage

COUNTS = (0, 3_000, 10_000)
SECONDS = 20.0  #: of watching an engine without work
CALM = 0.05  #: seconds of its processor that an engine without work uses in a second, at most
PAGES = 7
UNITS = {"memory": "MB resident", "start": "s, without imports", "ready": "s of the process", "CPU": "s of its start"}
UNITS |= {"page": "s for 400", "idle": "% of a core"}
BOUNDS = {"memory, 3,000": 100, "start, 3,000": 1, "page, 3,000": 0.15, "memory, 10,000": 200, "idle, 10,000": 0.5}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    with scratch(options) as folder:
        for count in COUNTS:
            progress(f"many: writing {count:,} functions with timers, of which --scale is a part")
            write(folder / str(count), options.scaled(count) if count else 0)
        while True:
            figures: Round = {}
            for count in COUNTS:
                progress(f"many: start with {count:,} functions, then {SECONDS * options.scale:g} s without work")
                found = measure(folder / str(count), options)
                figures |= {f"{name}, {count:,}": value for name, value in found.items()}
            yield figures


def write(directory: Path, count: int) -> None:
    with engine(directory) as server:
        if count:
            urn = server.deploy("f-0", NOOP).rpartition("/")[2]
            event = {"name": "t", "schedule_type": "Rate", "schedule": "1d", "user_event": '{"job": 0}'}
            body = {"trigger_type_code": "TIMER", "trigger_status": "ACTIVE", "event_data": event}
            server.call("POST", f"/v2/{PROJECT}/fgs/triggers/{urn}", body)
    if count:
        anyio.run(partial(_fill, directory, count))
        with engine(directory) as server:
            _settle(server)


async def _fill(directory: Path, count: int) -> None:
    """Copy the only function of a data directory, and its trigger, until there are ``count``."""
    hour = time.gmtime().tm_hour + 2  # no timer is due while the engine is measured
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            [function], _ = await storage.catalog.load()
            [row] = await storage.resources.load("trigger")
            trigger, functions, rows = json.loads(row.body), [], []
            for number in range(1, count):
                function_id = await storage.catalog.new_function_id()
                functions.append(msgspec.structs.replace(function, function_id=function_id, name=f"f-{number}"))
                cron = f"0 {number % 60} {(hour + number % 20) % 24} * * ?"
                rule = {"schedule_type": "Cron", "schedule": cron} if number % 2 else {}
                trigger["id"] = f"00000000-0000-4000-8000-{number:012}"
                body = msgspec.json.encode({**trigger, "data": {**trigger["data"], "name": f"t-{number}", **rule}})
                rows.append(msgspec.structs.replace(row, owner=f"function:{function_id}", id=trigger["id"], body=body))
            await storage.catalog.put_functions(functions, rows)


def measure(directory: Path, options: Options) -> Round:
    with engine(directory, profile=options.profile) as server:
        server.call("GET", "/readyz")
        ready, took = (time.time_ns() - server.started_at) / 1e9, cpu_of(server.pid)
        [start] = [json.loads(line)["seconds"] for line in server.log.splitlines() if '"serving"' in line]
        _settle(server)
        used = _used(server, SECONDS * options.scale)
        memory, pages = memory_mb(server.pid), []
        for _ in range(PAGES):
            begin = time.perf_counter()
            server.call("GET", f"/v2/{PROJECT}/fgs/functions?maxitems=400")
            pages.append(time.perf_counter() - begin)
    figures = {"memory": memory, "start": start, "ready": ready, "CPU": took.loop + took.threads}
    return {**figures, "page": median(pages), "idle": used / (SECONDS * options.scale) * 100}


def _used(server: Engine, seconds: float) -> float:
    """Return the CPU seconds that the engine uses in ``seconds``."""
    before = cpu_of(server.pid)
    time.sleep(seconds)
    used = cpu_of(server.pid).since(before)
    return used.loop + used.threads


def _settle(server: Engine) -> None:
    """Return when the engine hardly uses its processor any more, such as after it has stored positions."""
    until(lambda: _used(server, 1) < CALM, "the engine had work")


SCENARIO = Scenario(
    name="many",
    title="functions with a timer each",
    figures=tuple(
        Figure(name=f"{kind}, {count:,}", unit=unit, at_most=BOUNDS.get(f"{kind}, {count:,}"))
        for count, (kind, unit) in product(COUNTS, UNITS.items())
    ),
    rounds=rounds,
)
