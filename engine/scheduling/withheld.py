"""Invocations that the scheduler must not start for a while."""

from __future__ import annotations

from engine.scheduling.function_queue import Entry


class Withheld:
    """State of an invocation that must not start while callers try to end it, such as by a cancellation."""

    __slots__ = ("callers", "ended", "entry")

    def __init__(self) -> None:
        self.callers = 0
        self.entry: Entry | None = None  #: entry to put back: it was removed from the queue, or was to be added
        self.ended = False
