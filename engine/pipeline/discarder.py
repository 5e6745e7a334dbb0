"""Discarder: ends waiting invocations that no slot takes as DISCARD, in small steps.

    function deleted ──▶ scheduler closes it ──▶ its invocations end, some in each commit ──▶ none is left
    pause or first row ──▶ alarm at the earliest expiry ──▶ pass over the oldest rows ──▶ alarm at the next expiry

The scheduler starts no invocations of a closed function, so that no invocation ends twice. Invocations that are stored
after the deletion, or become due after it, reach the scheduler later and start another round. The function's
asynchronous settings are deleted too, so that no destination gets these outcomes.

An alarm is set only for paused functions whose asynchronous settings limit the age. A pass reads pages in the order of
execution and stops at the first row that is too young. A retry, or an invocation with a priority, may be found later
than it expires, by the time that separates its due time from its place in order. All state is read from disk, so an
engine that takes over begins with a pass.
"""

from __future__ import annotations

import asyncio
import math
from itertools import groupby

import anyio
import anyio.lowlevel
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import PageDamaged, Unavailable
from engine.functions.catalog import Catalog
from engine.model import Code, Invocation, Outcome, State
from engine.model.alarms import Alarm
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy
from engine.pipeline.cancellation import BATCH, Cancellation
from engine.protocols import FIRST, Page, Place, Selection, Storage, WaitingEnd
from engine.scheduling.function_queue import BEGINNING
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.discarder")

RETRY_DELAY = 1.0  #: seconds between tries while the journal is unavailable
MESSAGE = "the function was deleted"
PAGE_ROWS = 200
PAGE_SIZE = 4 << 20
LATE = 0.001  #: seconds after its expiry at which a row is certainly too old
REST = 1.0  #: seconds between two passes of a function, at least
SHARE = 10.0  #: a function rests this many times as long as its last pass took


class Discarder:
    """Service that discards waiting invocations: all of deleted functions, and old ones of paused functions."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        storage: Storage,
        cancellation: Cancellation,
        catalog: Catalog,
        policy: RetryPolicy,
        clock: Clock,
    ) -> None:
        self._scheduler, self._cancellation = scheduler, cancellation
        self._records, self._window = storage.records, storage.window
        self._catalog, self._policy, self._clock = catalog, policy, clock
        self._deleted: dict[int, None] = {}  #: deleted functions to process, in order of their deletion
        self._deletion = asyncio.Event()
        self._due: dict[int, float] = {}  #: time of the next pass, by paused function
        self._work = asyncio.Event()
        self._alarm: Alarm | None = None

    def discard(self, function_id: int) -> None:
        """Start no more asynchronous invocations of a deleted function. Discard waiting ones in the background."""
        self._scheduler.close(function_id)
        self._enqueue(function_id)

    def note_push(self, invocation: Invocation) -> None:
        """Note that an invocation waits on disk only, because its function is deleted or paused.

        The alarm of a paused function is set, unless it is set for an earlier invocation. One with an ordering key may
        be older than those that have set the alarm, because it was held before.
        """
        function_id = invocation.function_id
        if self._scheduler.pause_reason(function_id) is None:
            self._enqueue(function_id)
            return
        if function_id in self._due and not invocation.ordering_key:
            return
        due = invocation.first_due_at + self._shortest_age(function_id) + LATE
        if due < self._due.get(function_id, math.inf):
            self._due[function_id] = due
            self._work.set()

    def note_pause(self, function_id: int) -> None:
        """Look at the waiting invocations of a function, because it is paused now, or its settings have changed."""
        self._due[function_id] = -math.inf
        self._work.set()

    def note_clock(self) -> None:
        """Look at all paused functions, because the clock is trusted again."""
        for function_id in self._due:
            self._due[function_id] = -math.inf
        self._work.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._discard_deleted)
            task_status.started()
            await self._expire_paused()

    # --- deleted functions ----------------------------------------------------------------------------------

    def _enqueue(self, function_id: int) -> None:
        self._deleted[function_id] = None
        self._deletion.set()

    async def _discard_deleted(self) -> None:
        while True:
            await self._deletion.wait()
            self._deletion.clear()
            while self._deleted:
                function_id = next(iter(self._deleted))
                del self._deleted[function_id]
                await self._discard_all(function_id)

    async def _discard_all(self, function_id: int) -> None:
        ended, selection = 0, Selection(function_id=function_id)
        after: Place | None = FIRST
        while after is not None:
            # Lets slots start the invocations that they were given before the deletion, so that these are skipped.
            await anyio.lowlevel.checkpoint()
            now = self._clock.now()
            outcome = Outcome(code=Code.FUNCTION_MISSING, message=MESSAGE, started_at=now, ended_at=now)
            try:
                scan = await self._records.waiting(selection, after, BATCH)
                if scan.keys:
                    end = WaitingEnd(state=State.DISCARD, outcome=outcome)
                    ended += len(await self._cancellation.end(function_id, scan.keys, end))
                after = scan.reached
            except PageDamaged as problem:
                log.error("waiting invocations not discarded", function_id=function_id, problem=str(problem))
                return
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
        if ended:
            log.info("waiting invocations discarded", invocations=ended, function_id=function_id)

    # --- paused functions -----------------------------------------------------------------------------------

    async def _expire_paused(self) -> None:
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                now = self._clock.now()
                for function_id in [function_id for function_id, due in self._due.items() if due <= now]:
                    await self._look(function_id)
                self._set_alarm()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    async def _look(self, function_id: int) -> None:
        if self._scheduler.pause_reason(function_id) is None:
            del self._due[function_id]  # slots find what is too old
            return
        began = asyncio.get_running_loop().time()
        self._due[function_id] = math.inf  # while the clock is not trusted, until it is
        if self._clock.expiry.check():
            return
        try:
            due = await self._pass(function_id)
        except PageDamaged as problem:
            log.error("paused invocations not discarded", function_id=function_id, problem=str(problem))
            del self._due[function_id]  # set by the next push
            return
        except Unavailable as problem:
            log.warning("paused invocations cannot be discarded", function_id=function_id, problem=str(problem))
            due = 0.0
        rest = max(REST, SHARE * (asyncio.get_running_loop().time() - began))
        if self._due[function_id] == -math.inf:
            return  # another pause has begun meanwhile
        due = min(due, self._due[function_id])
        if due == math.inf:
            del self._due[function_id]  # set by the next push
        else:
            self._due[function_id] = max(due, self._clock.now() + rest)

    async def _pass(self, function_id: int) -> float:
        """Discard what is too old. Return the time of the next pass; infinity: no row is left that can be too old."""
        after, due, age = BEGINNING, math.inf, self._shortest_age(function_id)
        while age != math.inf:
            await anyio.lowlevel.checkpoint()  # lets slots start the invocations that they were given before the pause
            page = await self._window.ready(function_id, after, PAGE_ROWS, PAGE_SIZE)
            young, next_due = await self._discard_old(function_id, page, age)
            due = min(due, next_due)
            if young or page.complete or self._scheduler.pause_reason(function_id) is None:
                break
            after = page.invocations[-1].rank_key
        return due

    async def _discard_old(self, function_id: int, page: Page, age: float) -> tuple[bool, float]:
        """Discard the rows of a page that are too old.

        Return whether a row was too young to go on, and the time of the earliest expiry among the rows that are left.
        """
        now, due, old = self._clock.now(), math.inf, list[Invocation]()
        young = False
        for invocation in page.invocations:
            rules = self._policy.rules(self._catalog.settings_of(function_id, invocation.version))
            young = invocation.rank + age >= now
            if self._policy.too_old(invocation, rules, now):
                old.append(invocation)
            else:
                due = min(due, max(invocation.first_due_at + rules.max_age, invocation.rank + age) + LATE)
            if young:
                break
        for version, rows in groupby(sorted(old, key=lambda row: row.version), key=lambda row: row.version):
            await self._end(function_id, version, [row.key for row in rows], now)
        return young, due

    async def _end(self, function_id: int, version: str, keys: list[int], now: float) -> None:
        settings = self._catalog.settings_of(function_id, version)
        text = f"older than {self._policy.rules(settings).max_age:g} s before it could start"
        outcome = Outcome(code=Code.EXPIRED, message=text, started_at=now, ended_at=now)
        deliver_to = settings.on_failure if settings else None
        end = WaitingEnd(state=State.DISCARD, outcome=outcome, deliver_to=deliver_to)
        ended = await self._cancellation.end(function_id, keys, end)
        log.info("waiting invocations of a paused function discarded", function_id=function_id, invocations=len(ended))

    def _shortest_age(self, function_id: int) -> float:
        """Return the shortest maximum age among the versions of a function; infinity if there is none."""
        versions = self._catalog.versions(function_id)
        settings = (self._catalog.settings_of(function_id, version.version) for version in versions)
        return min((self._policy.rules(setting).max_age for setting in settings), default=math.inf)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = min(self._due.values(), default=math.inf)
        if due != math.inf and not self._work.is_set():
            self._alarm = self._clock.call_at(due, self._work.set)
