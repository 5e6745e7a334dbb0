"""Clock guard: holds all expiry after a start whose clock is far ahead of the stored data.

A wrong clock would otherwise discard at once whatever has a limit of age: waiting invocations, finished ones, pending
deliveries, idempotency keys, records of streams. The hold ends when an administrator accepts the clock, or after
``HOLD`` seconds. The reference is the time of the newest stored invocation, or of the last start or acceptance with a
trusted clock if that is later. It stays stored while the hold lasts, because invocations that are accepted meanwhile
have times of the doubtful clock.
"""

from __future__ import annotations

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import Unavailable
from engine.model.clock import Clock, rfc3339
from engine.model.signal import Signal
from engine.protocols import Records, Store

log = structlog.get_logger("functiond.clock")

STORE = "functiond.clock"  #: no table of a plugin has this name
HOLD = 600.0  #: seconds
DAY = 86_400.0
_TABLE, _KEY = "clock", "reference"


class _Stored(Struct, frozen=True, kw_only=True):
    reference: float  #: last trusted time
    held: bool  #: the clock was not trusted when this was stored


class ClockState(Struct, frozen=True, kw_only=True):
    now: float
    held: bool  #: the clock is not trusted, and nothing expires
    reference: float = 0.0  #: last trusted time
    ahead: float = 0.0  #: seconds by which the clock is ahead of it
    ends_in: float = 0.0  #: seconds until the hold ends by itself


class ClockGuard:
    """Service that holds expiry. ``tolerance`` is in seconds; 0 trusts every clock.

    ``released()`` announces the end of a hold.
    """

    def __init__(self, *, clock: Clock, records: Records, store: Store, tolerance: float, hold: float = HOLD) -> None:
        self.released: Signal[[]] = Signal()
        self._clock, self._records, self._store = clock, records, store
        self._tolerance, self._hold = tolerance, hold
        self._accepted = anyio.Event()
        self._reference = self._ends_at = 0.0

    async def load(self) -> None:
        """Compare the clock with the stored data, and hold expiry if the clock is too far ahead.

        Call once, before anything may expire.
        """
        now = self._clock.now()
        body = await self._store.get(_TABLE, _KEY)
        stored = msgspec.json.decode(body, type=_Stored) if body else None
        newest = await self._newest(now, stored)
        if newest is None or not 0 < self._tolerance < now - newest:
            await self._write(now, held=False)
            return
        self._reference, self._ends_at = newest, anyio.current_time() + self._hold
        self._clock.expiry.hold(newest)
        await self._write(newest, held=True)
        log.warning(
            "the clock is far ahead of the newest invocation, so nothing expires until it is accepted",
            now=rfc3339(now),
            newest=rfc3339(newest),
            days=round((now - newest) / DAY),
            hold=self._hold,
            next_step="correct the clock and restart, or run: functiond clock accept",
        )

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """End the hold when it is accepted or has lasted long enough. Return at once if there is none."""
        task_status.started()
        if not self._clock.expiry.held:
            return
        with anyio.move_on_after(max(0.0, self._ends_at - anyio.current_time())):
            await self._accepted.wait()
            return
        self._release("the hold is over")
        await self._write(self._clock.now(), held=False)

    async def accept(self) -> ClockState:
        """Trust the clock from now on. Return the state after that. Raises the errors of a write of the storage."""
        if self._clock.expiry.held:
            await self._store.write(_TABLE, _row(self._clock.now(), held=False))
            self._release("the clock was accepted")
            self._accepted.set()
        return self.state()

    def state(self) -> ClockState:
        now = self._clock.now()
        if not self._clock.expiry.held:
            return ClockState(now=now, held=False)
        ends_in = max(0.0, self._ends_at - anyio.current_time())
        return ClockState(now=now, held=True, reference=self._reference, ahead=now - self._reference, ends_in=ends_in)

    async def _newest(self, now: float, stored: _Stored | None) -> float | None:
        """Return the newest trusted time before ``now``. Later times were stored while the clock was wrong."""
        if stored is not None and stored.held:
            return stored.reference
        newest = await self._records.newest(now)
        if stored is None or stored.reference > now:
            return newest
        return stored.reference if newest is None else max(newest, stored.reference)

    async def _write(self, reference: float, *, held: bool) -> None:
        try:
            await self._store.write(_TABLE, _row(reference, held=held))
        except Unavailable as problem:  # a later start may hold expiry needlessly, or begin a hold anew
            log.warning("state of the clock not stored", problem=str(problem))

    def _release(self, reason: str) -> None:
        self._clock.expiry.release()
        log.warning("data expires again", reason=reason, now=rfc3339(self._clock.now()))
        self.released()


def _row(reference: float, *, held: bool) -> dict[str, bytes]:
    return {_KEY: msgspec.json.encode(_Stored(reference=reference, held=held))}
