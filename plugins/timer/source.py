"""The source of TIMER: one request for each due time, and never two, also when the engine dies in between.

What was due while nothing ran, because the engine was down, its machine slept, or the function was switched off, is
caught up as the setting says: one request for the last of it, one for each, or none; and so is what was due while a
timer that waits for its function waited. A full backlog only makes the requests wait: each comes.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import anyio
import msgspec
from anyio.abc import TaskStatus
from msgspec import Meta, Struct

from engine import Cron, Event, FunctiondError, Mode, TriggerContext
from plugins.timer.schedule import Schedule, Timetable

#: Seconds after which a due time counts as missed.
LATE = 60.0
#: Requests in one transaction when each missed time is caught up.
TOGETHER = 100
CURSOR = "due"


class TimerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    catch_up: Literal["once", "all", "skip"] = "once"  #: what was due while nothing ran
    zone: Annotated[str, Meta(min_length=1)] = "UTC"  #: of calendars that name none by CRON_TZ

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone is {self.zone!r}: no time zone this machine knows") from None


class _Position(Struct, frozen=True, kw_only=True):
    """The last due time that is dealt with; of another generation it says nothing."""

    generation: int
    due: float


class TimerTrigger:
    def __init__(self, name: str, schedule: Schedule, user_event: str) -> None:
        self._name, self._schedule, self._user_event = name, schedule, user_event

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        zone = ZoneInfo(context.plugin.settings.zone)
        table = Timetable(schedule=self._schedule, since=math.floor(context.since), zone=zone)
        task_status.started()
        last = await self._catch_up(context, table, _last(context))
        while (due := table.next_after(last)) < math.inf:
            ahead = due > context.plugin.clock.now()
            await context.plugin.sleep_until(due)
            off = await context.enabled()
            if (ahead or off or context.mode is Mode.SYNC) and context.plugin.clock.now() - due > LATE:
                last = await self._catch_up(context, table, last)
            else:
                await self._fire(context, table, [due], due)
                last = due
        await anyio.sleep_forever()

    async def _catch_up(self, context: TriggerContext, table: Timetable, last: float) -> float:
        """Deal with all that is due by now; gives the last of it."""
        newest = table.last_until(context.plugin.clock.now(), last)
        if newest is None:
            return last
        rule = context.plugin.settings.catch_up
        while rule == "all" and last < newest:
            missed = _between(table, last, newest)
            last = missed[-1]
            await self._fire(context, table, missed, last)
        if rule != "all":
            await self._fire(context, table, [newest] if rule == "once" else [], newest)
        return newest

    async def _fire(self, context: TriggerContext, table: Timetable, due: list[float], last: float) -> None:
        events = [Event(payload=self._event(moment, table)) for moment in due]
        position = {CURSOR: msgspec.json.encode(_Position(generation=context.generation, due=last))}
        if context.mode is Mode.ASYNC:
            await context.accept_batch(events, position)
            return
        await context.accept_batch([], position)  # first: a call cannot be part of a transaction
        for event in events:
            try:
                await context.call(event)
            except FunctiondError as error:
                context.trouble(str(error))

    def _event(self, due: float, table: Timetable) -> bytes:
        """Spec triggers_runtime, 1.1."""
        own = table.schedule.zone if isinstance(table.schedule, Cron) else ""
        zone = ZoneInfo(own) if own else table.zone
        event = {
            "version": "v1.0",
            "time": datetime.fromtimestamp(math.floor(due), UTC).astimezone(zone).isoformat(),
            "trigger_type": "TIMER",
            "trigger_name": self._name,
            "user_event": self._user_event,
        }
        return msgspec.json.encode(event)


def _last(context: TriggerContext) -> float:
    """Where this generation has come to; at first, its beginning."""
    kept = context.cursors.get(CURSOR)
    position = msgspec.json.decode(kept, type=_Position) if kept else None
    return position.due if position and position.generation == context.generation else context.since


def _between(table: Timetable, last: float, newest: float) -> list[float]:
    """The next due times, some of them."""
    found: list[float] = []
    while len(found) < TOGETHER and (due := table.next_after(last)) <= newest:
        found.append(due)
        last = due
    return found
