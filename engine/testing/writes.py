"""Writes of a storage in memory: their completion, and failures that tests cause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.errors import NotStored, ShuttingDown


class MemoryWrites:
    """State that decides whether a write is made, refused, or kept until writes succeed again."""

    def __init__(self) -> None:
        self.failure = ""  #: reason for which writes are refused; empty: they succeed
        self.broken = False
        self._closed = False
        self._kept: list[Callable[[], None]] = []

    def open(self) -> None:
        self.failure, self.broken, self._closed = "", False, False

    def close(self) -> None:
        self._closed = True
        self._kept.clear()

    def fail(self, failure: str, *, broken: bool = False) -> None:
        """Refuse writes until ``heal``. If ``broken``, refuse them until ``open``."""
        self.failure, self.broken = failure, broken
        if broken:
            self._kept.clear()

    def heal(self) -> None:
        """Make the kept writes, and later ones."""
        self.failure = ""
        kept, self._kept = self._kept, []
        for write in kept:
            write()

    def check(self) -> None:
        """Raise NotStored while writes fail, and ShuttingDown when the storage is closed."""
        if self.failure:
            raise NotStored(self.failure)
        if self._closed:
            raise ShuttingDown

    def keep(self, write: Callable[[], None]) -> None:
        """Call ``write`` now, or when writes succeed again. Drop it if the storage is broken or closed."""
        if not self.failure and not self._closed:
            write()
        elif not self.broken and not self._closed:
            self._kept.append(write)


def at_the_next_turn(value: Any, error: Exception | None, callback: Callable[[], None] | None) -> asyncio.Future[Any]:
    """Call ``callback`` at the next turn of the event loop, then set ``value`` or ``error`` on the returned future."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def answer() -> None:
        if callback is not None:
            callback()
        if future.cancelled():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    loop.call_soon(answer)
    return future
