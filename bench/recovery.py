"""Time in which an engine with a million queued invocations restarts, after a regular stop and after SIGKILL."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.journal_file import fill
from bench.server import MAX_WAIT, Engine, ServerFailed, engine

ROWS = 1_000_000
FUNCTION = 1  #: id of the first function in a new data directory
#: Fraction of the backlog that must remain for a start to count.
LEFT = 0.5
#: Runs that are observed before the engine is killed.
SEEN = 200
#: Functions write to a named pipe of the host, which a sandbox would hide.
ENVIRONMENT = {"FUNCTIOND_EXECUTOR__ISOLATION": "process"}
#: Writes the time of each run to the pipe while a reader has it open.
HANDLER = """import os, struct, time

def handler(event, context):
    now = time.time_ns()
    try:
        pipe = os.open({pipe!r}, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        os.write(pipe, struct.pack("q", now))
    except BlockingIOError:
        pass
    finally:
        os.close(pipe)
    return ""
"""


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    with scratch(options) as folder:
        pipe, directory = folder / "pipe", folder / "data"
        os.mkfifo(pipe)
        with engine(directory, **ENVIRONMENT) as server:
            function = server.deploy("report", HANDLER.format(pipe=str(pipe)))
        rows = options.scaled(ROWS)
        progress(f"recovery: queueing {rows:,} invocations")
        anyio.run(partial(fill, directory, FUNCTION, rows))
        while True:
            progress("recovery: start, then kill -9")
            after_stop = _start(directory, pipe, function, rows, kill=True)
            progress("recovery: start after kill -9")
            after_kill = _start(directory, pipe, function, rows, kill=False)
            yield {
                "first 202": after_stop[0],
                "first run": after_stop[1],
                "first 202 after kill -9": after_kill[0],
                "first run after kill -9": after_kill[1],
                "queued": min(after_stop[2], after_kill[2]),
            }


def _start(directory: Path, pipe: Path, function: str, rows: int, *, kill: bool) -> tuple[float, float, float]:
    """Start an engine on the directory, and stop it regularly or, with ``kill``, by SIGKILL after some invocations.

    Return the seconds from the process's start to the first 202 and to the first invocation's handler, and the number
    of invocations that were queued at the start.
    """
    with _listening(pipe) as listener:
        server = Engine(directory, **ENVIRONMENT)
        try:
            server.wait_until_serving()
            server.call("POST", f"{function}/invocations-async", {})
            accepted = (time.time_ns() - server.started_at) / 1e9
            queued = check_backlog(server, rows)
            first = _moments(listener, 1, since=server.started_at)[0]
            if kill:
                _moments(listener, SEEN, since=server.started_at)
                server.kill()
        finally:
            server.end()
    return accepted, (first - server.started_at) / 1e9, queued


def check_backlog(server: Engine, rows: int) -> float:
    """Return the number of invocations that were queued at the start.

    Raises ServerFailed if too few remain of ``rows``.

    Earlier starts have executed some invocations, and figures for a short backlog would be meaningless. The number is
    taken from the engine's metrics, because reading the file would recover SQLite's log, which the scenario measures.
    """
    queued = server.metric("backlog_invocations") + server.metric("started_total")
    if queued < rows * LEFT:
        raise ServerFailed(f"the engine started on {queued:,.0f} queued invocations of {rows:,}; use a larger --scale")
    return queued


@contextmanager
def _listening(pipe: Path) -> Iterator[int]:
    # Opened for writing too, because a reader without any writer would read the end of the file repeatedly.
    listener = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        with suppress(BlockingIOError):  # discard times of earlier runs
            while os.read(listener, 1 << 16):
                pass
        yield listener
    finally:
        os.close(listener)


def _moments(listener: int, count: int, *, since: int) -> list[int]:
    """Return the times in nanoseconds at which the next ``count`` handlers started, earliest first.

    Times before ``since`` are ignored, because instances of a killed engine may still write some to the pipe.
    """
    moments: list[int] = []
    while len(moments) < count:
        readable, _, _ = select.select([listener], [], [], MAX_WAIT)
        if not readable:
            raise ServerFailed(f"no queued invocation ran within {MAX_WAIT:g} s")
        data = os.read(listener, 8 * 1024)
        moments += (moment for moment in struct.unpack(f"{len(data) // 8}q", data) if moment >= since)
    return sorted(moments)


SCENARIO = Scenario(
    name="recovery",
    title=f"start on {ROWS:,} queued invocations, from the process's start",
    figures=(
        Figure(name="first 202", unit="s", at_most=1),
        Figure(name="first run", unit="s"),
        Figure(name="first 202 after kill -9", unit="s", at_most=1),
        Figure(name="first run after kill -9", unit="s"),
        Figure(name="queued", unit="invocations at the start"),
    ),
    rounds=rounds,
    note="includes interpreter and imports; the file's pages may still be in the kernel's cache",
)
