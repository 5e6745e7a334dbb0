"""Source of TIMER: exactly one request for each due time, even if the engine is killed in between.

Due times are missed while the engine is down, the machine sleeps, the function is disabled, or a synchronous timer
waits for its function. The setting ``catch_up`` decides what follows: one request for the last missed due time, one for
each, or none. A full backlog only delays requests; none is dropped. Due times that wait when the trigger is changed
follow by the schedule of that time; the setting holds for those that wait for more than ``LATE`` seconds.

Each request has an idempotency key of trigger, generation and due time. When the clock is set back, the cursor is moved
back with it. Due times that had a request while the clock was ahead are then dropped as duplicates. Synchronous calls
have no key, so they are repeated.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import partial
from time import monotonic as elapsed
from zoneinfo import ZoneInfo

import msgspec
import structlog
from anyio.abc import TaskStatus

from engine import Event, FunctiondError, Mode, Rest, TriggerContext
from plugins.timer.options import TimerOptions
from plugins.timer.schedule import CURSOR, Interval, Position, Timetable, read_schedule

log = structlog.get_logger("functiond.timer")

#: Seconds after which a due time counts as missed.
LATE = 60.0
#: Requests in one transaction when each missed time is caught up.
BATCH_SIZE = 100
Look = tuple[float, float]  #: elapsed time, and time of day by the clock


class TimerTrigger:
    def __init__(self, options: TimerOptions) -> None:
        self._options, self._schedule = options, options.read()

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> Rest:
        zone, clock = ZoneInfo(context.plugin.settings.zone), context.plugin.clock
        table = Timetable(schedule=self._schedule, since=math.floor(context.since), zone=zone)
        task_status.started()
        position = await self._begin(context, zone)
        last_look = elapsed(), clock.now()
        position = _adjusted_to_clock(context, table, position, 0.0)
        position = await self._catch_up(context, table, position)
        return await self._follow(context, table, position, last_look, waited=False)

    async def _follow(
        self, context: TriggerContext, table: Timetable, position: Position, last_look: Look, *, waited: bool
    ) -> Rest:
        """Handle what is due, and rest until the next due time. ``waited``: the timer did so since it handled one."""
        clock, (checked_at, showed) = context.plugin.clock, last_look
        while True:
            passed, checked_at = elapsed() - checked_at, elapsed()
            jumped = clock.now() - showed - passed > LATE  # the clock was set ahead, or the machine was suspended
            showed = clock.now()
            before, position = position, _adjusted_to_clock(context, table, position, passed)
            # Due times since the clock was set back are late, not missed.
            waited = jumped or (waited and position is before)
            due = table.next_after(position.due)
            if due > clock.now():
                resume = partial(self._follow, context, table, position, (checked_at, showed), waited=True)
                return Rest(until=due, resume=resume)
            if await context.enabled():
                waited = True
            else:
                position = await self._handle(context, table, position, due, waited=waited)
                waited = False

    async def _begin(self, context: TriggerContext, zone: ZoneInfo) -> Position:
        """Return the position of the trigger's generation. Before, handle due times that waited for an earlier one.

        Those that waited when the trigger was disabled are dropped.
        """
        if stored := context.cursors.get(CURSOR):
            position = msgspec.json.decode(stored, type=Position)
            if position.generation == context.generation:
                return position
            if position.rule and position.generation >= context.enabled_generation:
                since, until = math.floor(position.since), min(context.since, context.plugin.clock.now())
                table = Timetable(schedule=read_schedule(*position.rule), since=since, zone=zone, until=until)
                while (due := table.next_after(position.due)) <= context.plugin.clock.now():
                    await context.enabled()
                    position = await self._handle(context, table, position, due, waited=True)
        rule, begin = (self._options.schedule_type, self._options.schedule), context.since
        # The beginning of an interval is not due itself: a small step back of the clock must not fire it.
        asked = begin if isinstance(self._schedule, Interval) else 0.0
        position = Position(generation=context.generation, rule=rule, since=begin, due=begin, asked=asked)
        await context.accept_batch([], {CURSOR: msgspec.json.encode(position)})
        return position

    async def _handle(
        self, context: TriggerContext, table: Timetable, position: Position, due: float, *, waited: bool
    ) -> Position:
        """Invoke the function for a due time that has been reached, or catch up if the due time counts as missed."""
        now = context.plugin.clock.now()
        behind = position.handled_until(table.since, now) > position.due
        if now - due > LATE and (waited or behind or context.mode is Mode.SYNC):
            return await self._catch_up(context, table, position)
        return await self._fire(context, table, position, [due], due)

    async def _catch_up(self, context: TriggerContext, table: Timetable, position: Position) -> Position:
        """Handle all missed due times up to now, as the setting ``catch_up`` demands."""
        clock, rule = context.plugin.clock, context.plugin.settings.catch_up
        position = position.after(position.handled_until(table.since, clock.now()), asked=False)
        newest = table.last_until(clock.now(), position.due)
        if newest is None:
            return position
        if rule != "all":
            return await self._fire(context, table, position, [newest] if rule == "once" else [], newest)
        # The clock may be set back meanwhile. Due times that are in the future again must wait.
        while missed := _between(table, position.due, min(newest, clock.now())):
            position = await self._fire(context, table, position, missed, missed[-1])
        return position

    async def _fire(
        self, context: TriggerContext, table: Timetable, position: Position, due: list[float], last: float
    ) -> Position:
        """Move the cursor to ``last``, invoke the function once for each due time, and return the new position."""
        key = f"timer:{context.trigger_id}:{position.generation}"
        name, text = self._options.name, self._options.user_event
        events = [
            Event(payload=event_json(name, text, table.local(at)), idempotency_key=f"{key}:{at:.0f}") for at in due
        ]
        position = position.after(last, asked=bool(due))
        cursor = {CURSOR: msgspec.json.encode(position)}
        if context.mode is Mode.ASYNC:
            await context.accept_batch(events, cursor)
            return position
        await context.accept_batch([], cursor)  # first: a call cannot be part of a transaction
        for event in events:
            try:
                await context.call(event)
            except FunctiondError as error:
                context.report_problem(str(error))
        return position


def event_json(name: str, user_event: str, due: datetime) -> bytes:
    """Return the JSON of FunctionGraph's documented TIMER event for a due time."""
    event = {
        "version": "v1.0",
        "time": due.isoformat(),
        "trigger_type": "TIMER",
        "trigger_name": name,
        "user_event": user_event,
    }
    return msgspec.json.encode(event)


def _adjusted_to_clock(context: TriggerContext, table: Timetable, position: Position, passed: float) -> Position:
    """Return the timer's position, moved back if it was set while the clock was ahead.

    The clock was set back within the last ``passed`` seconds, so the due times of these seconds have not fired yet.
    """
    now = context.plugin.clock.now()
    if not position.is_ahead(table, now):
        return position
    log.warning(
        "clock was set back: timer continues from now",
        trigger=context.trigger_id,
        function=context.function,
        cursor=_utc(position.due),
        now=_utc(now),
    )
    return msgspec.structs.replace(position, due=now - passed)


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(math.floor(moment), UTC).isoformat()


def _between(table: Timetable, last: float, newest: float) -> list[float]:
    """Return the due times after ``last`` and up to ``newest``, but at most the first ``BATCH_SIZE``."""
    times: list[float] = []
    while len(times) < BATCH_SIZE and (due := table.next_after(last)) <= newest:
        times.append(due)
        last = due
    return times
