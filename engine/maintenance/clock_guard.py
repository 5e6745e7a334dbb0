"""Clock guard: holds all expiry while the clock is far ahead of the last trusted time.

A wrong clock would otherwise discard at once whatever has a limit of age: waiting invocations, finished ones, pending
deliveries, idempotency keys, records of streams. A hold begins in two cases:

- At a start whose clock is far ahead of the stored data: of the newest stored invocation, or of the last start or
  acceptance with a trusted clock if that is later.
- When the clock is set far ahead while the engine runs, see ``Expiry``.

The hold ends when an administrator accepts the clock, when the clock is set back to within the tolerance, or after
``HOLD`` seconds. The last trusted time stays stored while the hold lasts, because invocations that are accepted
meanwhile have times of the doubtful clock.
"""

from __future__ import annotations

import asyncio
import math

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import StoredDataUnreadable, Unavailable
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
    ahead: float = 0.0  #: seconds by which the clock is ahead of it, without the time since
    ends_in: float = 0.0  #: seconds until the hold ends by itself


class ClockGuard:
    """Service that holds expiry. ``tolerance`` is in seconds; 0 trusts every clock.

    ``released()`` announces the end of a hold.
    """

    def __init__(self, *, clock: Clock, records: Records, store: Store, tolerance: float, hold: float = HOLD) -> None:
        self.released: Signal[[]] = Signal()
        self._clock, self._records, self._store = clock, records, store
        self._tolerance, self._hold = tolerance, hold
        self._begun, self._over = asyncio.Event(), asyncio.Event()
        self._storing = anyio.Lock()
        self._reference = self._ends_at = 0.0

    async def load(self) -> None:
        """Compare the clock with the stored data, and hold expiry if the clock is too far ahead.

        Call once, before anything may expire.
        """
        now = self._clock.now()
        newest = await self._newest(now, await self._read())
        if newest is None or not 0 < self._tolerance < now - newest:
            await self._write(now, held=False)
        else:
            self._clock.expiry.hold(newest)
            self._begin(newest, "the clock is far ahead of the newest invocation")
            await self._write(newest, held=True)
        self._clock.expiry.watch(self._tolerance)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """End each hold when it is accepted, when the clock is corrected, or when the hold has lasted long enough."""
        task_status.started()
        while True:
            await self._begun.wait()
            async with self._storing:
                if self._clock.expiry.held:
                    await self._write(self._reference, held=True)
            alarm = self._clock.call_at(math.inf, self.state)  # so that steps of the clock are noticed
            try:
                with anyio.move_on_after(max(0.0, self._ends_at - _elapsed())):
                    await self._over.wait()
            finally:
                alarm.cancel()
            async with self._storing:
                await self._end()

    def note_doubt(self) -> None:
        """Tell of a hold that ``Expiry`` has begun, and let it end in time."""
        self._begin(self._clock.expiry.now(), "the clock was set far ahead")

    def note_correction(self) -> None:
        """End the hold soon, because the clock is not too far ahead any more."""
        self._over.set()

    async def accept(self) -> ClockState:
        """Trust the clock from now on. Return the state after that. Raises the errors of a write of the storage."""
        async with self._storing:
            if self._clock.expiry.check():
                await self._store.write(_TABLE, _row(self._clock.now(), held=False))
                self._release("the clock was accepted")
        return self.state()

    def state(self) -> ClockState:
        expiry, now = self._clock.expiry, self._clock.now()
        if not expiry.check():
            return ClockState(now=now, held=False)
        ends_in = max(0.0, self._ends_at - _elapsed())
        return ClockState(now=now, held=True, reference=self._reference, ahead=expiry.ahead, ends_in=ends_in)

    async def _read(self) -> _Stored | None:
        """Return the stored reference. If it cannot be read, the time of the newest invocation must do."""
        try:
            body = await self._store.get(_TABLE, _KEY)
            return msgspec.json.decode(body, type=_Stored) if body else None
        except (StoredDataUnreadable, msgspec.MsgspecError) as problem:
            log.warning("stored reference of the clock cannot be read", problem=str(problem))
            return None

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

    async def _end(self) -> None:
        """End a hold whose time is over or whose clock was corrected, unless another one has begun meanwhile."""
        expiry = self._clock.expiry
        if not expiry.held:
            self._begun.clear()
        elif self._over.is_set() or _elapsed() >= self._ends_at:
            self._begun.clear()
            self._release("the clock was corrected" if expiry.ahead <= self._tolerance else "the hold is over")
            await self._write(self._clock.now(), held=False)

    def _begin(self, reference: float, event: str) -> None:
        now = self._clock.now()
        self._reference, self._ends_at = reference, _elapsed() + self._hold
        self._over.clear()
        self._begun.set()
        log.warning(
            f"{event}, so nothing expires until it is accepted",
            now=rfc3339(now),
            trusted=rfc3339(reference),
            days=round((now - reference) / DAY),
            hold=self._hold,
            next_step="correct the clock, or run: functiond clock accept",
        )

    def _release(self, reason: str) -> None:
        self._clock.expiry.release()
        self._over.set()
        log.warning("data expires again", reason=reason, now=rfc3339(self._clock.now()))
        self.released()


def _elapsed() -> float:
    """Return the time of the event loop, which no step of the clock changes."""
    return asyncio.get_running_loop().time()


def _row(reference: float, *, held: bool) -> dict[str, bytes]:
    return {_KEY: msgspec.json.encode(_Stored(reference=reference, held=held))}
