"""Ends of invocations: counters of states and codes, and the callers that wait for an end."""

from __future__ import annotations

import asyncio

from engine.model import State
from engine.protocols import Records


class Ends:
    """Counters of ends since the start, and the callers that wait until an invocation has ended.

    Both are in memory: a standby that takes over counts from zero, and its callers wait anew.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self.outcomes = {state.value: 0 for state in State if state.final}  #: final states of asynchronous invocations
        self.codes: dict[int, int] = {}  #: codes of all attempts, in both modes

    def note_code(self, code: int, count: int = 1) -> None:
        self.codes[code] = self.codes.get(code, 0) + count

    def note_end(self, key: int, state: State) -> None:
        """Count an end that is on disk, and wake the callers that wait for it."""
        self.outcomes[state.value] += 1
        self._wake(key)

    async def wait(self, key: int, timeout: float | None) -> None:  # noqa: ASYNC109  (the timeout raises no error)
        """Wait until the invocation has ended, at most ``timeout`` seconds (None: no limit).

        Return at once if the invocation does not exist.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            record = await self._records.get(key)
            if record is not None and not record.state.final:
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiters = self._waiters.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(key, None)

    def _wake(self, key: int) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)
