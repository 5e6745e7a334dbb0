"""Lag of the event loop: how late a timer fires while work is in flight, and which code holds the loop meanwhile.

Code that holds the loop delays everything else in the engine. The timer runs only while requests or invocations are in
flight, so an idle engine sleeps. Each part of the engine that begins work on the loop sets ``entry`` first. If a timer
fires far too late, the last entry is logged, because its work has most likely held the loop.

A held loop answers no request, not even those of probes, whose time limit must notice it. So a thread logs which code
holds the loop, while it is held. The thread sleeps without wake-ups while nothing is in flight, and wakes twice per
``stall`` seconds otherwise.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.asgi.wire import App, Receive, Scope, Send
from engine.metrics.histogram import Distribution, Histogram

INTERVAL = 0.02  #: seconds between two measurements
HELD = 0.25  #: seconds of lag that are logged
PATH = 200  #: characters of a path in the log
FRAMES = 12  #: innermost calls of the loop's thread in the log

Entry = str | Scope  #: name of a part of the engine, or the ASGI scope of a request

log = structlog.get_logger("functiond")


class LoopLag:
    """Measurement of the lag of one event loop.

    ``in_flight`` returns whether invocations run. Requests count in ``requests``. The measurement starts with ``enter``
    and ends by itself.
    """

    def __init__(self, in_flight: Callable[[], bool] = lambda: False) -> None:
        self.began = threading.Event()  #: set at each start of the measurement
        self.turned = 0.0  #: time of the last measurement, by ``time.monotonic``
        self.hold = (0.0, 0.0)  #: seconds and end of the last lag that was logged, by ``time.monotonic``
        self.requests = 0  #: number of requests in flight, counted by the HTTP servers
        self.worst = 0.0  #: longest lag in seconds since the engine started
        self.in_flight = in_flight
        self._entry: Entry | None = None
        self._previous: Entry = ""  # last entry before the previous measurement
        self._ticking = False
        self._due = 0.0
        self._seconds = Histogram()
        self._loop: Any = None

    @property
    def measuring(self) -> bool:
        return self._ticking

    def enter(self, entry: Entry) -> None:
        """Note that ``entry`` begins work on the loop. Call this from the loop's thread."""
        self._entry = entry
        if not self._ticking:
            self._start()

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leave out a request that waits for others until the block ends, such as a stream of events."""
        self.requests -= 1
        try:
            yield
        finally:
            self.requests += 1

    def note_attempt(self, *attempt: object) -> None:
        """Note that the end of an attempt is handled on the loop."""
        self._entry = "end of an invocation"
        if not self._ticking:
            self._start()

    def snapshot(self) -> Distribution:
        return self._seconds.snapshot()

    def _start(self) -> None:
        self._ticking, self._loop = True, asyncio.get_running_loop()
        self.turned = time.monotonic()
        self._schedule()
        self.began.set()

    def _schedule(self) -> None:
        self._due = self._loop.time() + INTERVAL
        self._loop.call_later(INTERVAL, self._measure)

    def _measure(self) -> None:
        lag, self.turned = max(0.0, self._loop.time() - self._due), time.monotonic()
        entry, self._entry = self._entry, None
        if entry is not None:
            self._previous = entry
        self._seconds.observe(lag)
        self.worst = max(self.worst, lag)
        if lag >= HELD:
            self.hold = lag, self.turned
            log.warning("event loop held", seconds=round(lag, 3), last_entry=_name(self._previous))
        if entry is not None or self.requests > 0 or self.in_flight():
            self._schedule()
        else:
            self._ticking, self._previous = False, ""  # keeps no finished request in memory


def _name(entry: Entry) -> str:
    return entry if isinstance(entry, str) else f"{entry['method']} {entry['path'][:PATH]}"


def measured(app: App, lag: LoopLag) -> App:
    """Return ``app`` with its requests reported to ``lag``."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        lag.enter(scope)
        lag.requests += 1
        try:
            await app(scope, receive, send)
        finally:
            lag.requests -= 1

    return call


class LoopWatch:
    """Watch over the loop that ``lag`` measures. A loop that makes no turn for ``stall`` seconds is logged once."""

    def __init__(self, lag: LoopLag, stall: float) -> None:
        self._lag, self._stall = lag, stall
        self._stopped = threading.Event()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        watched = threading.get_ident()
        threading.Thread(target=self._watch, args=(watched,), name="loop watch", daemon=True).start()
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            self._stopped.set()
            self._lag.began.set()  # the thread ends by itself

    def _watch(self, thread: int) -> None:
        logged = 0.0
        while self._lag.began.wait() and not self._stopped.is_set():
            self._lag.began.clear()
            while self._lag.measuring and not self._stopped.wait(self._stall / 2):
                turned = self._lag.turned
                seconds = time.monotonic() - turned
                if seconds >= self._stall and turned != logged and self._lag.measuring:
                    logged = turned
                    log.error("event loop stalled", seconds=round(seconds, 1), stack=_stack(thread))


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # ``None`` if the thread has ended
    return "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else ""
