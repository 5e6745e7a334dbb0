"""Writes of a storage in memory that tell when they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.lowlevel

from tests.doubles.writes import MemoryWrites

T = TypeVar("T")


class NotedWrites(MemoryWrites):
    """Writes after each of which ``written`` is called. Other tasks then run, as after a commit."""

    written: Callable[[], object] = staticmethod(lambda: None)

    async def call(self, apply: Callable[[], T]) -> T:
        value = await super().call(apply)
        self.written()
        await anyio.lowlevel.checkpoint()  # what is stored stays stored although its caller is cancelled
        return value
