"""Thread that logs which code holds the event loop, while it is held. The loop itself can tell only afterwards.

A held loop answers no request, not even those of probes, whose time limit must notice it. The thread sleeps without
wake-ups while nothing is in flight, and wakes twice per ``stall`` seconds otherwise.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.metrics.loop_lag import LoopLag

FRAMES = 12  #: innermost calls of the loop's thread in the log

log = structlog.get_logger("functiond")


class LoopWatch:
    """Watch over the loop that ``lag`` measures. A loop that makes no turn for ``stall`` seconds is logged once."""

    def __init__(self, lag: LoopLag, stall: float) -> None:
        self._lag, self._stall = lag, stall
        self._begun, self._stopped = threading.Event(), threading.Event()

    def wake(self) -> None:
        """Watch until nothing is in flight. Call this when the measurement of the lag begins."""
        self._begun.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        watched = threading.get_ident()
        threading.Thread(target=self._watch, args=(watched,), name="loop watch", daemon=True).start()
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            self._stopped.set()
            self._begun.set()  # the thread ends by itself

    def _watch(self, thread: int) -> None:
        logged = 0.0
        while self._begun.wait() and not self._stopped.is_set():
            self._begun.clear()
            while self._lag.measuring and not self._stopped.wait(self._stall / 2):
                turned = self._lag.turned
                seconds = time.monotonic() - turned
                if seconds >= self._stall and turned != logged and self._lag.measuring:
                    logged = turned
                    log.error("event loop stalled", seconds=round(seconds, 1), stack=_stack(thread))


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # ``None`` if the thread has ended
    return "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else ""
