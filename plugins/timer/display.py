"""Presentation of timers in lists: their schedule, and the next due time."""

from __future__ import annotations

import math
from zoneinfo import ZoneInfo

from plugins.timer.options import TimerOptions
from plugins.timer.schedule import Timetable
from plugins.timer.settings import TimerSettings


def subject(options: TimerOptions) -> str:
    return f"every {options.schedule}" if options.schedule_type == "Rate" else options.schedule


def next_due(options: TimerOptions, settings: TimerSettings, changed: float, now: float) -> float:
    """Return the first due time after ``now``, or infinity if there is none. ``changed`` begins intervals."""
    table = Timetable(schedule=options.read(), since=math.floor(changed), zone=ZoneInfo(settings.zone))
    return table.next_after(now)
