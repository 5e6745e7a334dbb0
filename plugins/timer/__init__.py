"""Plugin for timers (TIMER). Invokes a function at an interval, or at calendar times."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from engine import Mode, Plugin, TriggerDisplay, TriggerRules
from plugins.timer.options import TimerOptions, TimerSettings
from plugins.timer.schedule import Timetable
from plugins.timer.source import TimerTrigger, event_json


def next_due(options: TimerOptions, settings: TimerSettings, changed: float, now: float) -> datetime | None:
    """Return the first due time after ``now``, in the schedule's time zone, if any. ``changed`` begins intervals."""
    table = Timetable(schedule=options.read(), since=math.floor(changed), zone=ZoneInfo(settings.zone))
    due = table.next_after(now)
    return None if math.isinf(due) else table.local(due)


def example(kind: str) -> bytes:
    return event_json("nightly", '{"job": "purge"}', datetime(2026, 3, 1, 6, 30, tzinfo=UTC))


plugin = Plugin(
    kinds=("TIMER",),
    service=TimerSettings,
    options=TimerOptions,
    trigger=TimerTrigger,
    rules=TriggerRules(
        vendor=True,
        limited=True,
        unique=("name",),
        mode=lambda options: Mode.SYNC if options.sync_execution else Mode.ASYNC,
        mode_option="sync_execution",
    ),
    example=example,
    display=TriggerDisplay(
        about={"TIMER": "Due times of a schedule."},
        subject=lambda options: f"every {options.schedule}" if options.schedule_type == "Rate" else options.schedule,
        next_due=next_due,
    ),
)
