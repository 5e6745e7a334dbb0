"""How soon an engine serves again on a million queued invocations: at a start, and after kill -9 while it works."""

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

from bench.harness import Figure, Options, Round, Say, Scenario, scratch
from bench.journal_file import fill
from bench.server import MAX_WAIT, Engine, ServerFailed, engine

ROWS = 1_000_000
FUNCTION = 1  #: the first that a new data directory gives
#: Share of the backlog that must be left for a start to count.
LEFT = 0.5
#: Runs that are seen before the engine is killed.
SEEN = 200
#: The functions tell by a pipe of the host, which a sandbox would hide from them.
WALLS = {"FUNCTIOND_EXECUTOR__ISOLATION": "process"}
#: Each run tells when it began, for as long as someone listens.
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


def rounds(options: Options, say: Say) -> Generator[Round, None, None]:
    with scratch(options) as place:
        pipe, directory = place / "pipe", place / "data"
        os.mkfifo(pipe)
        with engine(directory, **WALLS) as server:
            function = server.deploy("tell", HANDLER.format(pipe=str(pipe)))
        rows = options.scaled(ROWS)
        say(f"recovery: queueing {rows:,} invocations")
        anyio.run(partial(fill, directory, FUNCTION, rows))
        while True:
            say("recovery: start, then kill -9")
            after_stop = _start(directory, pipe, function, rows, kill=True)
            say("recovery: start after kill -9")
            after_kill = _start(directory, pipe, function, rows, kill=False)
            yield {
                "first 202": after_stop[0],
                "first run": after_stop[1],
                "first 202 after kill -9": after_kill[0],
                "first run after kill -9": after_kill[1],
                "queued": min(after_stop[2], after_kill[2]),
            }


def _start(directory: Path, pipe: Path, function: str, rows: int, *, kill: bool) -> tuple[float, float, float]:
    """Seconds from the start of the process to the first 202, and to the first run; and how many were queued."""
    with _listening(pipe) as listener:
        server = Engine(directory, **WALLS)
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
    """How many it started on: earlier starts have run some, and on few the figures would mean nothing.

    The engine is asked, not the file: a reader would do the recovery of the log that the engine is timed for.
    """
    known = server.metric("backlog_invocations") + server.metric("started_total")
    if known < rows * LEFT:
        raise ServerFailed(f"the engine started on {known:,.0f} queued invocations, of {rows:,}")
    return known


@contextmanager
def _listening(pipe: Path) -> Iterator[int]:
    # Opened for writing too: a reader whose last writer went away would see the end, again and again.
    listener = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        with suppress(BlockingIOError):  # what was said to the last listener is old
            while os.read(listener, 1 << 16):
                pass
        yield listener
    finally:
        os.close(listener)


def _moments(listener: int, count: int, *, since: int) -> list[int]:
    """When the next runs began, in nanoseconds, earliest first; what a dead engine's last child says is passed over."""
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
    title=f"a start on {ROWS:,} queued invocations, from the process's start",
    figures=(
        Figure(name="first 202", unit="s", at_most=1),
        Figure(name="first run", unit="s"),
        Figure(name="first 202 after kill -9", unit="s", at_most=1),
        Figure(name="first run after kill -9", unit="s"),
        Figure(name="queued", unit="invocations at the start"),
    ),
    rounds=rounds,
    note="interpreter and imports included; the file's pages may still be in the kernel's cache",
)
