"""Queues of all functions for one mode of invocation."""

from __future__ import annotations

from engine.scheduling.function_queue import FunctionQueue


class ModeQueue:
    """Queues of all functions for synchronous or asynchronous work, and the order of functions that can run next."""

    def __init__(self) -> None:
        self.queues: dict[int, FunctionQueue] = {}
        self.order: list[tuple[float, int]] = []  #: heap of (virtual time, function); only the top is up to date
        self.queued: set[int] = set()
        self.running = 0
