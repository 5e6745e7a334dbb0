"""Scheduler: assigns entries of the run queue to free slots, and refills the queue from disk.

``take`` waits for an entry; ``push`` and ``release`` may make an entry available. The task ``run`` reads the next page
of each window with few entries, and makes delayed invocations ready when they are due. The task does not poll: a timer
is set for the earliest due time.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import Unavailable
from engine.model import Invocation, Mode, Outcome
from engine.model.alarms import Alarm
from engine.model.clock import Clock
from engine.model.invocation import Kind
from engine.model.signal import Signal
from engine.protocols import Page, Recovery, Window
from engine.scheduling.function_queue import Entry
from engine.scheduling.runqueue import RunQueue

log = structlog.get_logger("functiond.scheduler")

#: Delayed rows made ready in one step.
PROMOTE_ROWS = 256
#: Seconds before a failed read is retried.
RETRY_DELAY = 1.0
LONGEST_TOKEN = 3600.0  #: seconds until the timer of tokens looks again


class TokenTimer:
    """Timer for the next start that the rate of a function allows: renews the rates, and then calls ``renewed``.

    The timer is set only while a function has used up its rate.
    """

    def __init__(self, queue: RunQueue, renewed: Callable[[], None]) -> None:
        self._queue, self._renewed = queue, renewed
        self._timer: asyncio.Handle | None = None
        self._fires_at = 0.0  #: by the clock of the loop; uvloop has no timer for what is due within half a millisecond

    def now(self) -> float:
        """Return the time of the event loop in seconds, which no step of the clock changes."""
        return asyncio.get_running_loop().time()

    def set(self) -> None:
        """Set the timer for the first token, if any function waits for one, and the timer is not earlier."""
        moment = self._queue.next_token()
        if moment is None:
            return
        loop = asyncio.get_running_loop()
        moment = min(moment, loop.time() + LONGEST_TOKEN)
        if self._timer is None or moment < self._fires_at:
            self.cancel()
            self._fires_at, self._timer = moment, loop.call_at(moment, self._expire)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._queue.renew(self.now())
        self._renewed()
        self.set()


class _Withheld:
    """State of an invocation that must not start while callers try to end it, such as by a cancellation."""

    __slots__ = ("callers", "ended", "entry")

    def __init__(self) -> None:
        self.callers = 0
        self.entry: Entry | None = None  #: entry to put back: it was removed from the queue, or was to be added
        self.ended = False


class Scheduler:
    """Assignment of queued entries to slots.

    ``kept_out(invocation)`` announces an asynchronous invocation that was pushed and only waits on disk, because its
    function is closed or paused.
    """

    def __init__(self, queue: RunQueue, window: Window, clock: Clock) -> None:
        self.kept_out: Signal[[Invocation]] = Signal()
        self._queue, self._window, self._clock = queue, window, clock
        self.running, self.obstacles, self.oldest_due = queue.running, queue.obstacles, queue.oldest_due
        self.statistics, self.waits = queue.statistics, queue.waits
        self._idle: deque[asyncio.Future[Entry]] = deque()
        self._held: set[str] = set()
        self._withheld: dict[int, _Withheld] = {}
        self._reads = False  #: rows are being read from disk
        self._ended: list[int] = []  #: withheld keys that ended during the read
        self._closed: set[int] = set()
        self._paused: dict[int, str] = {}  #: reasons by function
        self._starts = self._reads_done = 0
        self._work = asyncio.Event()
        self._next_due: float | None = None
        self._alarm: Alarm | None = None
        self._tokens = TokenTimer(queue, self._hand_out)

    # --- adding work ----------------------------------------------------------------------------------------

    def recover(self, recovery: Recovery) -> None:
        """Prepare the queue for the invocations that wait on disk at the start of the engine.

        ``run`` reads ready invocations. The timer is set for delayed ones.
        """
        for function_id in recovery.waiting:
            self._queue.expect(function_id)
        self.note_due(recovery.next_due)
        self._work.set()

    def push(self, invocation: Invocation, reply: asyncio.Future[Outcome] | None = None) -> None:
        """Add an invocation to the queue, with the future that a synchronous caller waits for.

        A delayed one only sets the timer, because it waits on disk. A held one waits there for ``note_release``. For an
        asynchronous invocation of a closed or paused function, ``kept_out`` is called instead.
        """
        if (invocation.delayed or invocation.held) and invocation.function_id not in self._closed:
            if not invocation.held:
                self.note_due(invocation.due_at)
        elif invocation.key in self._withheld:
            self._withheld[invocation.key].entry = Entry(invocation, reply)
        else:
            self._enqueue(Entry(invocation, reply))

    def note_due(self, due_at: float | None) -> None:
        """Set the timer for a delayed invocation that is due at ``due_at`` (None: there is none)."""
        if due_at is not None and (self._next_due is None or due_at < self._next_due):
            self._next_due = due_at
            self._set_alarm(due_at)

    def note_release(self) -> None:
        """Look for due invocations on disk, because the end of others has released held ones."""
        self._next_due = -math.inf
        self._work.set()

    def close(self, function_id: int) -> None:
        """Start no more asynchronous invocations of a function. The caller must end those that wait on disk."""
        self._closed.add(function_id)
        self._paused.pop(function_id, None)
        self._queue.drop(function_id)

    def configure(
        self, function_id: int, *, weight: float, limit: int, memory: int, concurrent_requests: int = 1
    ) -> None:
        self._queue.configure(
            function_id, weight=weight, limit=limit, memory=memory, concurrent_requests=concurrent_requests
        )
        self._hand_out()

    def set_places(self, function_id: int, kind: Kind, places: int) -> None:
        """Let ``places`` further invocations of a function start, of one kind, in both modes; -1: any number."""
        self._queue.set_places(function_id, kind, places)
        self._hand_out()

    def set_pause(self, function_id: int, reason: str | None) -> bool:
        """Start no asynchronous invocation of a function, for a reason that may be empty. None ends the pause.

        During a pause, the invocations of the function are only on disk, and take no memory. Return whether a pause
        begins.
        """
        begins = reason is not None and function_id not in self._paused
        if begins:
            self._queue.pause(function_id)
            self._hand_out()  # the first entry may have blocked others
        if reason is not None:
            self._paused[function_id] = reason
        elif self._paused.pop(function_id, None) is not None:
            # Slots start the invocations that they were given before the pause first. Otherwise a page that is read
            # from disk would have them, too.
            asyncio.get_running_loop().call_soon(self._end_pause, function_id)
        return begins

    def set_rate(self, function_id: int, rate: float, burst: int) -> None:
        """Let ``rate`` asynchronous invocations of a function start in a second, ``burst`` at once; 0: no limit."""
        if rate or self._queue.rated:
            self._queue.set_rate(function_id, rate, burst, self._tokens.now())
            self._hand_out()
            self._tokens.set()

    def pause_reason(self, function_id: int) -> str | None:
        """Return why a function is paused, or None if it is not."""
        return self._paused.get(function_id)

    # --- handing out work -----------------------------------------------------------------------------------

    async def take(self) -> Entry:
        """Wait for the next entry to run, and take a slot and memory for it.

        ``release`` and ``exchange`` free both.
        """
        return self._pop() or await self._wait()

    async def exchange(self, entry: Entry, seconds: float) -> Entry:
        """Release an entry, whose run lasted ``seconds``, and wait for the next entry to run.

        The caller gets an entry before callers that already wait in ``take``.
        """
        self._queue.release(entry, seconds)
        if (chosen := self._pop()) is None:
            return await self._wait()
        self._hand_out()
        return chosen

    def park(self, entry: Entry) -> None:
        """Put an entry back, and start no asynchronous invocation of its function until ``unpark``."""
        self._queue.park(entry.invocation.function_id)
        self.put_back(entry)

    def put_back(self, entry: Entry, seconds: float = 0.0) -> None:
        """Add an entry again that was taken for ``seconds`` but has not run, and free what was taken for it."""
        self._queue.refund(entry, seconds)
        self.push(entry.invocation, entry.reply)
        self._hand_out()

    def unpark(self) -> None:
        """Start invocations of all functions again."""
        self._queue.unpark()
        self._hand_out()

    def release(self, entry: Entry, seconds: float) -> None:
        self._queue.release(entry, seconds)
        self._hand_out()

    def withdraw(self, function_id: int, key: int) -> bool:
        """Remove a waiting synchronous call. Return False if the call has started or is not queued."""
        return self._remove(function_id, key) is not None

    def withdraw_calls(self, function_id: int) -> list[Entry]:
        """Remove and return all synchronous calls of a function that wait."""
        calls = self._queue.remove_calls(function_id)
        self._hand_out()  # a removed call may have blocked others
        return calls

    def withhold(self, function_id: int, key: int) -> None:
        """Prevent the start of a waiting invocation until ``reinstate``.

        If several callers withhold an invocation, each must call ``reinstate``.
        """
        withheld = self._withheld.setdefault(key, _Withheld())
        withheld.callers += 1
        withheld.entry = self._remove(function_id, key) or withheld.entry

    def reinstate(self, key: int, *, ended: bool) -> None:
        """Undo one call of ``withhold``. The last caller's call puts the invocation back into the queue.

        ``ended`` means that the end of the invocation is on disk. After that, no call puts the invocation back.
        """
        withheld = self._withheld[key]
        withheld.callers -= 1
        withheld.ended |= ended
        if withheld.ended and self._reads:
            self._ended.append(key)
        elif not withheld.callers:
            del self._withheld[key]
            if withheld.entry is not None and not withheld.ended:
                self._enqueue(withheld.entry)

    def hold(self, reason: str) -> None:
        """Start no asynchronous invocation until ``resume`` is called with the same reason."""
        self._held.add(reason)

    def resume(self, reason: str) -> None:
        """End a hold, if there is one for this reason, and start what may start now."""
        self._held.discard(reason)
        self._hand_out()

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    def possible_work(self) -> tuple[str, int] | None:
        """Return work that should have been done at once, and how often such work was done; None if there is none.

        A due promotion and a page to read are work of ``run``. An entry that may start should have got a slot at the
        change that made it possible, whichever that was. None of this depends on what runs or is paused.
        """
        if self._reads or self._queue.is_low or (self._next_due is not None and self._next_due <= self._clock.now()):
            return "invocations on disk are not read", self._reads_done
        if self._queue.pop(asynchronous=not self._held, take=False, now=self._tokens.now()) is None:
            return None
        return "an invocation does not start beside a free slot", self._starts

    # --- the service ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Read pages from disk for windows with few entries, and make delayed invocations ready when they are due."""
        task_status.started()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                try:
                    await self._promote()
                    await self._refill()
                except Unavailable as problem:
                    log.warning("backlog cannot be read", problem=str(problem))
                    await asyncio.sleep(RETRY_DELAY)
                    self._work.set()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            self._tokens.cancel()

    async def _refill(self) -> None:
        while (needs_refill := self._queue.needs_refill()) is not None:
            function_id, horizon = needs_refill
            with self._reading():
                try:
                    page = await self._window.ready(function_id, horizon, self._queue.page_rows, self._queue.page_size)
                except BaseException:
                    self._queue.refill_failed(function_id)
                    raise
                self._fill(function_id, page)

    def _fill(self, function_id: int, page: Page) -> None:
        if function_id in self._closed:
            return
        entries = []
        for entry in map(Entry, page.invocations):
            if entry.invocation.key in self._withheld:
                self._withheld[entry.invocation.key].entry = entry
            else:
                entries.append(entry)
        self._queue.refill(function_id, entries, complete=page.complete)
        self._hand_out()

    async def _promote(self) -> None:
        while self._next_due is not None and self._next_due <= self._clock.now():
            self._next_due = None
            with self._reading():
                try:
                    ready, next_due = await self._window.promote(self._clock.now(), PROMOTE_ROWS, self._queue.page_size)
                except BaseException:
                    self._next_due = 0.0
                    raise
                for invocation in ready:
                    self.push(invocation)
            self.note_due(next_due)
        if self._next_due is not None and self._alarm is None:  # the clock was set back after the alarm
            self._set_alarm(self._next_due)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Keep invocations that end during a read from disk out of the queue until the read has been processed.

        The same commit may read an invocation and end it. If its end is reported first, the row read must not be
        queued.
        """
        self._reads = True
        try:
            yield
        finally:
            self._reads = False
            self._reads_done += 1
            for key in self._ended:
                if key in self._withheld and not self._withheld[key].callers:
                    del self._withheld[key]
            self._ended.clear()

    # --- inside ---------------------------------------------------------------------------------------------

    def _end_pause(self, function_id: int) -> None:
        if function_id not in self._paused and function_id not in self._closed:
            self._queue.end_pause(function_id)
            self._work.set()

    def _enqueue(self, entry: Entry) -> None:
        invocation = entry.invocation
        function_id = invocation.function_id
        if (function_id in self._closed or function_id in self._paused) and invocation.mode is Mode.ASYNC:
            self.kept_out(invocation)
        elif self._queue.push(entry):
            self._hand_out()

    def _remove(self, function_id: int, key: int) -> Entry | None:
        entry = self._queue.remove(function_id, key)
        if entry is not None:
            if self._queue.is_low:
                self._work.set()
            self._hand_out()  # the removed entry may have blocked others
        return entry

    async def _wait(self) -> Entry:
        waiter: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._queue.refund(waiter.result())
                self._queue.push(waiter.result())
            raise

    def _pop(self) -> Entry | None:
        rated = self._queue.rated
        entry = self._queue.pop(asynchronous=not self._held, now=self._tokens.now() if rated else 0.0)
        if rated:
            self._tokens.set()
        self._starts += entry is not None
        if self._queue.is_low:
            self._work.set()
        return entry

    def _hand_out(self) -> None:
        while self._idle:
            if self._idle[0].done():  # its slot was cancelled
                self._idle.popleft()
                continue
            entry = self._pop()
            if entry is None:
                return
            self._idle.popleft().set_result(entry)

    def _set_alarm(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._clock.call_at(moment, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._work.set()
