"""Writes of a storage in memory: when they are made, and failures that tests cause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from engine.errors import JournalBroken, NotStored, ShuttingDown

T = TypeVar("T")
Apply = Callable[[], Any]
Done = Callable[[Any, Exception | None], None]


class MemoryWrites:
    """Writer that makes each write at once, unless it is refused, or kept until writes succeed again.

    Subclasses may delay the writes. They override ``submit``, ``keep``, ``call``, ``read`` and ``close``.
    """

    def __init__(self) -> None:
        self.failure = ""  #: reason for which writes are refused; empty: they succeed
        self.broken = self.closed = False
        self._on_broken = asyncio.Event()
        self._kept: list[Callable[[], None]] = []

    def open(self) -> None:
        self.failure, self.broken, self.closed = "", False, False
        self._on_broken.clear()

    async def close(self) -> None:
        self.closed = True
        self._kept.clear()

    def check(self) -> None:
        """Raise NotStored while writes fail, and ShuttingDown when the storage is closed."""
        if self.failure:
            raise NotStored(self.failure)
        if self.closed:
            raise ShuttingDown

    def submit(self, apply: Apply, done: Done) -> None:
        """Make a write, or raise. At the next turn of the event loop, call ``done`` with its value or its error."""
        self.check()
        asyncio.get_running_loop().call_soon(done, *attempt(apply))

    def keep(self, apply: Apply, done: Done) -> None:
        """Make a write as ``submit``, or when writes succeed again. Drop it if the storage is broken or closed."""
        if not self.failure and not self.closed:
            self.submit(apply, done)
        elif not self.broken and not self.closed:
            self._kept.append(lambda: self.submit(apply, done))

    async def call(self, apply: Callable[[], T]) -> T:
        """Make a write, or a read in the order of the writes, and return its value."""
        self.check()
        return apply()

    async def read(self, read: Callable[[], T]) -> T:
        """Return the value of a read that does not wait for writes."""
        return read()

    # --- failures -------------------------------------------------------------------------------------------

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

    def break_down(self, failure: str) -> None:
        """Refuse writes until ``open``, and end ``end_when_broken``."""
        self.fail(failure, broken=True)
        self._on_broken.set()

    async def end_when_broken(self) -> None:
        await self._on_broken.wait()
        raise JournalBroken(self.failure)


def attempt(apply: Apply) -> tuple[Any, Exception | None]:
    """Return the value of a write, or its error."""
    try:
        return apply(), None
    except Exception as error:
        return None, error


def answer_of(future: asyncio.Future[Any]) -> Done:
    """Return a function that sets the value or the error of a write on the caller's future."""

    def answer(value: Any, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    return answer
