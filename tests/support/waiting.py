"""Waits: for a state that offers no event, and for the end of a context in a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isawaitable
from itertools import count
from typing import TypeVar

T = TypeVar("T")
SECONDS = 60  #: after which a state counts as never reached
QUICK_TURNS = 100  #: of the event loop, in each of which a state in memory is looked at before the first pause
PAUSE = 0.003  #: seconds


async def until(look: Callable[[], object]) -> None:
    """Wait until ``look`` returns a true value; it may be a coroutine function.

    Raises TimeoutError after a minute. Only for states that offer no event.
    """
    async with asyncio.timeout(SECONDS):
        for turn in count():
            value = look()
            pause = PAUSE if isawaitable(value) or turn >= QUICK_TURNS else 0
            if await value if isawaitable(value) else value:
                return
            await asyncio.sleep(pause)


@asynccontextmanager
async def in_own_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context in one task. Fixtures need this: pytest runs their two halves in different tasks."""
    entered, leave = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def hold() -> None:
        async with context as value:
            entered.set_result(value)
            await leave.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait([entered, task], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not task.done():
            yield await entered
    finally:
        leave.set()
        await task
