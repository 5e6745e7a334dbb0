"""Counts of work: calls, and turns of the event loop. Unlike times, they are the same on every machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def calls() -> Iterator[Callable[[], int]]:
    """Count the calls of functions, also of those in C, within the block."""
    made = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield lambda: made
    finally:
        sys.setprofile(before)


async def turns_during(work: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """Return the result of ``work``, and how often another task had its turn meanwhile."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    try:
        return await work, turns
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
