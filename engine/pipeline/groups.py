"""Ends of groups, steps of chains and calls that expire.

    commit that ends the last member, or the first that fails ──▶ group decided ──▶ continuation due, or ended

The continuation is stored with its group, and is held. Its release and the end of the group are one commit, so that it
becomes due exactly once, whenever the engine is killed. All work is on disk: an engine that takes over finds it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Raw, Struct

from engine.errors import Unavailable
from engine.functions.catalog import Catalog
from engine.model import Code, Invocation, Outcome, Record, State
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.text import storable
from engine.pipeline.cancellation import BATCH, CANCELLED, Cancellation
from engine.protocols import WaitingEnd
from engine.protocols.calls import Calls, Decided, Group, GroupState
from engine.scheduling.backlog import Backlog

log = structlog.get_logger("functiond.groups")

PAGE = 100  #: groups that are ended together
STEP = 500  #: invocations that one step ends
RETRY_DELAY = 1.0  #: seconds until the next try while the journal is unavailable
UNSEALED = 86_400.0  #: seconds after which a group that is not sealed ends
NO_EVENT = b"null"  #: stored event of a continuation whose event is the result itself
_VERSION = attrgetter("function_id", "version")


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Event of a continuation, into which the result is put as the first argument."""

    args: list[Raw]
    kwargs: dict[str, Raw]


class Groups:
    """Service that ends groups. Continuations get events of up to ``limit`` bytes."""

    def __init__(
        self,
        *,
        calls: Calls,
        cancellation: Cancellation,
        catalog: Catalog,
        backlog: Backlog,
        clock: Clock,
        identity: Identity,
        limit: int,
        priority_step: float,
    ) -> None:
        self._calls, self._cancellation, self._catalog = calls, cancellation, catalog
        self._backlog, self._clock, self._identity = backlog, clock, identity
        self._limit, self._priority_step = limit, priority_step
        self._cancelling: set[int] = set()
        self._next = 0.0  #: time at which the next call expires, or group is abandoned
        self._work = asyncio.Event()
        self._work.set()

    def wake(self) -> None:
        """Look for decided groups now."""
        self._work.set()

    def note_time(self, at: float) -> None:
        """Note that a call expires, or an unsealed group is abandoned, at this time."""
        if at < self._next:
            self._next = at
            self._work.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        async with anyio.create_task_group() as tasks:
            task_status.started()
            while True:
                self._work.clear()
                try:
                    if self._clock.now() >= self._next:
                        await self._end_late()
                    await self._end_decided(tasks)
                    due = self._next
                except Unavailable as problem:
                    log.warning("groups cannot be ended", problem=str(problem))
                    due = self._clock.now() + RETRY_DELAY
                alarm = None if due == math.inf else self._clock.call_at(due, self._work.set)
                try:
                    await self._work.wait()
                finally:
                    if alarm is not None:
                        alarm.cancel()

    # --- decided groups -------------------------------------------------------------------------------------

    async def _end_decided(self, tasks: TaskGroup) -> None:
        while found := await self._calls.decided(PAGE, self._cancelling):
            ends = []
            for decided in found:
                if decided.group.state is GroupState.DECIDED:
                    ends.append(self._end(decided))
                else:
                    self._cancelling.add(decided.group.key)
                    tasks.start_soon(self._cancel, decided)
            for problem in await asyncio.gather(*ends, return_exceptions=True):
                if problem is not None:
                    raise problem

    async def _end(self, decided: Decided) -> None:
        group, member, waiting, payload = decided.group, decided.member, decided.continuation, b""
        state, problem = GroupState.FAIL, ""
        if group.failed and group.need_all:
            problem = "a call before it failed"
            if member is not None:  # the first cause goes on to the end of a chain
                own = f"a call before, {member.request_id}, ended with {member.state}: {member.message}"
                problem = member.message if member.code == Code.CALL_BEFORE else own
        elif group.total is None:
            state, problem = GroupState.ABANDONED, f"not sealed within {UNSEALED / 3600:g} hours"
        elif waiting is not None:
            payload, problem = self._event(group, member, waiting)
        if problem:
            await self._fail(decided, state, problem)
        else:
            release = (payload, self._priority_step) if waiting is not None else None
            grown = await self._calls.end(group.key, GroupState.SUCCESS, "", self._clock.now(), release)
            if waiting is not None and grown:
                self._backlog.add(waiting.function_id, grown, 0)

    def _event(self, group: Group, member: Record | None, waiting: Invocation) -> tuple[bytes, str]:
        """Return the event of a continuation, and the reason why it cannot run, if any."""
        if waiting.damage:
            return b"", waiting.damage
        if member is None:
            value = _document(group, self._identity.request_id(group.key))
        elif member.damaged or member.message:  # a success has a message if its result is not kept
            return b"", f"no result of {member.request_id}: {member.message or 'damaged on disk'}"
        else:
            value = _json(member.result)
        if waiting.payload != NO_EVENT:
            own = msgspec.json.decode(waiting.payload, type=Arguments)
            value = msgspec.json.encode(Arguments([Raw(value), *own.args], own.kwargs))
        too_large = f"its event would have {len(value)} bytes, more than {self._limit}"
        return value, too_large if len(value) > self._limit else ""

    async def _fail(self, decided: Decided, state: GroupState, text: str) -> None:
        """End a group, and its continuation as FAIL, if that still waits for the group."""
        key, waiting, text = decided.group.key, decided.continuation, storable(text)
        code = Code.CANCELLED if state is GroupState.CANCELLED else Code.CALL_BEFORE
        if waiting is not None:
            await self._end_waiting([waiting], State.FAIL, code, text)
        await self._calls.end(key, state, text, self._clock.now())

    async def _cancel(self, decided: Decided) -> None:
        """End a group and all its members, in steps. The engine begins anew after a restart."""
        key = decided.group.key
        try:
            while True:
                with suppress(Unavailable):
                    if members := await self._calls.members_to_end(key, STEP):
                        self._work.set()  # members may be groups
                        await self.cancel_all(members)
                        continue
                    await self._fail(decided, GroupState.CANCELLED, CANCELLED)
                    break
                await asyncio.sleep(RETRY_DELAY)
        finally:
            self._cancelling.discard(key)

    async def cancel_all(self, unended: Sequence[Record]) -> int:
        """Cancel invocations. Return the number of those that ended."""
        waiting = [record for record in unended if record.state is State.WAIT]
        ended = await self._end_waiting(waiting, State.FAIL, Code.CANCELLED, CANCELLED)
        running = [self._cancellation.cancel(record.key) for record in unended if record.state is State.RUNNING]
        return ended + sum(done is True for done in await asyncio.gather(*running, return_exceptions=True))

    async def _end_waiting(self, waiting: Sequence[Record | Invocation], state: State, code: Code, message: str) -> int:
        """End waiting invocations. Return the number of those that have not begun meanwhile."""
        ended, now = 0, self._clock.now()
        outcome = Outcome(code=code, message=message, started_at=now, ended_at=now)
        for (function_id, version), rows in groupby(sorted(waiting, key=_VERSION), _VERSION):
            keys = [row.key for row in rows]
            settings = self._catalog.settings_of(function_id, version)
            deliver_to = settings.on_failure if settings and not outcome.cancelled else None
            end = WaitingEnd(state=state, outcome=outcome, deliver_to=deliver_to)
            for begin in range(0, len(keys), BATCH):
                ended += len(await self._cancellation.end(function_id, keys[begin : begin + BATCH], end))
        return ended

    # --- times ----------------------------------------------------------------------------------------------

    async def _end_late(self) -> None:
        """End calls that expire now, and groups that nobody has sealed."""
        before, self._next = self._next, math.inf  # calls that are queued meanwhile note their times
        try:
            while True:
                now = min(self._clock.now(), self._clock.expiry.now())
                expired, expires = await self._calls.expired(now, STEP)
                if not await self._end_waiting(expired, State.DISCARD, Code.EXPIRED, "not begun when it expired"):
                    break
            await self._calls.clear_expired(now)
            created = await self._calls.abandon(now - UNSEALED)
            times = [math.inf if expires is None else expires, math.inf if created is None else created + UNSEALED + 1]
        except BaseException:
            self._next = before
            raise
        self._next = min(self._next, *times)


def _json(result: bytes) -> bytes:
    """Return a result as JSON, as clients read it: a text that is not JSON is a string."""
    try:
        msgspec.json.decode(result or b"null", type=Raw)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(result.decode("utf-8", "replace"))
    return result or b"null"


def _document(group: Group, group_id: str) -> bytes:
    counts = {"total": group.total, "done": group.done, "failed": group.failed}
    return msgspec.json.encode({"group": {"id": group_id, **counts, "require": "all" if group.need_all else "ended"}})
