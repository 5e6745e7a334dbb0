"""Presentation of timers in lists: their schedule, and the next due time."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

from plugins.timer.options import TimerOptions
from plugins.timer.schedule import Timetable
from plugins.timer.settings import TimerSettings


def subject(options: TimerOptions) -> str:
    return f"every {options.schedule}" if options.schedule_type == "Rate" else options.schedule


def next_due(options: TimerOptions, settings: TimerSettings, changed: float, now: float) -> datetime | None:
    """Return the first due time after ``now``, in the schedule's time zone, if any. ``changed`` begins intervals."""
    table = Timetable(schedule=options.read(), since=math.floor(changed), zone=ZoneInfo(settings.zone))
    due = table.next_after(now)
    return None if math.isinf(due) else table.local(due)
