"""Latency of the 202, and size of the write-ahead log, while a backup is made under load (open loop).

The load runs before the backup, then in parts of equal length until the backup is complete. The part with the highest
percentile counts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import pad
from bench.load import Job, Report
from bench.server import NOOP, PROJECT, Engine, ServerFailed, engine, load

MEGABYTES = 5 * 1024
RATE = 500
CONNECTIONS = 64
LOOK_EVERY = 0.01  #: seconds between two looks at the log's size


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    megabytes = options.scaled(MEGABYTES)
    with scratch(options) as folder:
        progress(f"backup: filling a journal with {megabytes:,} MB")
        anyio.run(partial(pad, folder / "data", megabytes))
        number = 0
        with engine(folder / "data", profile=options.profile) as server:
            function = server.deploy("noop", NOOP)
            while True:
                progress(f"backup: {RATE} arrivals a second for {options.seconds:g} s")
                before = _load(server, function, options)
                progress("backup: the same while a backup is made")
                number += 1
                with _watched(folder / "data" / "journal.db-wal") as sizes:
                    made, during = _backup(server, function, Path(f"backup-{number}"), options)
                yield _figures(made, before, during, max(sizes))


def _backup(server: Engine, function: str, path: Path, options: Options) -> tuple[dict[str, Any], list[Report]]:
    """Make a backup under load. Return the last line of the reply with its duration, and a report of each part."""
    with ThreadPoolExecutor(1) as thread:
        made: Future[dict[str, Any]] = thread.submit(_made, server, path)
        during = [_load(server, function, options)]
        while not made.done():
            during.append(_load(server, function, options))
    return made.result(), during


def _made(server: Engine, path: Path) -> dict[str, Any]:
    began = time.perf_counter()
    last: dict[str, Any] = server.lines("POST", f"/v2/{PROJECT}/fgs/backups", {"path": str(path)})[-1]
    if last.get("state") != "done":
        raise ServerFailed(f"the backup failed: {last}")
    return {**last, "seconds": time.perf_counter() - began}


def _load(server: Engine, function: str, options: Options) -> Report:
    path = f"{function}/invocations-async"
    job = Job(port=server.port, path=path, body="{}", connections=CONNECTIONS, rate=RATE, seconds=options.seconds)
    return load(job)


@contextmanager
def _watched(file: Path) -> Iterator[list[int]]:
    """Yield a list that gets the size of a file at intervals, until the block ends."""
    sizes, ended = [0], Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY):
            if file.exists():
                sizes.append(file.stat().st_size)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(look)
        try:
            yield sizes
        finally:
            ended.set()


def _figures(made: dict[str, Any], before: Report, during: list[Report], log: int) -> Round:
    worst = max(during, key=lambda report: report.latency.p99)
    return {
        "p99": before.latency.p99,
        "p99 beside": worst.latency.p99,
        "rise": worst.latency.p99 - before.latency.p99,
        "p50 beside": worst.latency.p50,
        "worst beside": max(report.latency.worst for report in during),
        "log": log / 1e6,
        "slow steps": made["slow_steps"] / made["steps"] * 1000,
        "longest step": made["longest_step"] * 1000,
        "copied": made["copied"] / 1e6,
        "rate": made["copied"] / 1e6 / made["seconds"],
    }


SCENARIO = Scenario(
    name="backup",
    title=f"POST …/invocations-async beside a backup, {RATE} arrivals/s, open loop",
    figures=(
        Figure(name="p99", unit="ms to the 202, without a backup"),
        Figure(name="p99 beside", unit="ms to the 202, in the worst part of the backup"),
        Figure(name="rise", unit="ms of p99", at_most=20),
        Figure(name="p50 beside", unit="ms"),
        Figure(name="worst beside", unit="ms"),
        Figure(name="log", unit="MB of the write-ahead log, largest", at_most=256),
        Figure(name="slow steps", unit="of 1,000 steps of the copy held up commits for more than 5 ms", at_most=0.1),
        Figure(name="longest step", unit="ms"),
        Figure(name="copied", unit="MB"),
        Figure(name="rate", unit="MB/s, with its fsyncs"),
    ),
    rounds=rounds,
    note="data and backup are on the same disk",
)
