"""Record of the begin of a handler, by which a crash of the engine counts for the invocation or for its start.

The record joins the batch that is being gathered, and the handler does not wait for it. A crash in the next moment may
then count as one before the handler began, or not at all. Two kinds of attempts wait until the record is on disk, so
that an invocation that kills the engine at once is caught nevertheless:

- attempts of invocations that met a crash before,
- the first attempts after a start of the engine, because such an invocation is soon among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from engine.model import Begin, Invocation
from engine.protocols import Journal

FIRST_ATTEMPTS = 256
TIMEOUT = 5.0  #: seconds for which an attempt waits for its record, such as while the disk is full


class Begins:
    def __init__(self, journal: Journal, first_attempts: int = FIRST_ATTEMPTS) -> None:
        self._start, self._first = journal.start, first_attempts

    def of(self, invocation: Invocation, started_at: float) -> Begin:
        """Return the function that an executor calls before the handler begins."""
        return partial(self._begin, invocation, started_at)

    def _begin(self, invocation: Invocation, started_at: float) -> Awaitable[None] | None:
        if self._first <= 0 and not invocation.crash_count and not invocation.start_crashes:
            self._start(invocation, started_at, begun=True)
            return None
        self._first -= 1
        return self._store(invocation, started_at)

    async def _store(self, invocation: Invocation, started_at: float) -> None:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not stored.done():
                stored.set_result(None)

        self._start(invocation, started_at, begun=True, then=done)
        await asyncio.wait([stored], timeout=TIMEOUT)


def crashes_text(invocation: Invocation) -> str:
    """Return the message of an invocation that met too many crashes of the engine."""
    text = f"the engine crashed {invocation.crash_count} times while this invocation was running"
    starts = invocation.start_crashes
    return f"{text}, and {starts} times before its handler began" if starts else text
