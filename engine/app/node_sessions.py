"""Sessions of the nodes that may run work, stored so that the next engine waits for their end after an unclean stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from engine.errors import Unavailable
from engine.protocols import Store

STORE = "functiond.nodes"  #: no table of a plugin has this name
_TABLE = "sessions"
REASON = "nodes of the previous engine may still run work"

log = structlog.get_logger("functiond.nodes")


class Sessions:
    """Sessions of one engine. Call ``load`` before the dispatcher runs, then ``run`` as a service if it returns True.

    ``hold`` and ``resume`` are those of the scheduler: they get a reason.
    """

    def __init__(self, store: Store, hold: Callable[[str], None], resume: Callable[[str], None]) -> None:
        self._store, self._hold, self._resume = store, hold, resume
        self._lease = self._fenced_at = 0.0
        self._previous: tuple[str, ...] = ()  #: sessions of the previous engine
        self._living: set[str] = set()  #: those that have not ended
        self._over = asyncio.Event()

    async def load(self, lease: float) -> bool:
        """Hold asynchronous work if nodes of the previous engine may run some. Return whether they may.

        ``lease`` is that of new sessions.
        """
        self._lease, rows = lease, dict(await self._store.scan(_TABLE))
        self._previous, self._living = tuple(rows), set(rows)
        if rows:
            self._hold(REASON)
            seconds = max(map(float, rows.values())) * 1.01 + 0.05
            self._fenced_at = anyio.current_time() + seconds
            log.warning("asynchronous work held", reason=REASON, nodes=len(rows), seconds=round(seconds, 2))
        return bool(rows)

    async def run(self) -> None:
        """Resume asynchronous work when all sessions of the previous engine have ended, or their leases are over."""
        began = anyio.current_time()
        with anyio.CancelScope(deadline=self._fenced_at):
            await self._over.wait()
        self._resume(REASON)
        log.info("asynchronous work resumed", seconds=round(anyio.current_time() - began, 2), ended=not self._living)
        with suppress(Unavailable):  # the next engine waits for them again
            await self._store.write(_TABLE, delete=self._previous)

    def ended(self, session: str) -> None:
        """Note that nothing of a session of the previous engine runs any more."""
        self._living.discard(session)
        if not self._living:
            self._over.set()

    async def add(self, session: str) -> None:
        """Store a session before its first instance starts. Raises Unavailable: the node must not run any work."""
        await self._store.write(_TABLE, {session: b"%r" % self._lease})

    async def remove(self, session: str) -> None:
        """Forget a session of which nothing runs any more."""
        with suppress(Unavailable):
            await self._store.write(_TABLE, delete=[session])
