"""Schedules of functions: the options of a TIMER trigger for a crontab expression or a rate."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from functiond.errors import BadConfiguration

NAME = "from-code"  #: of the trigger, by which a later deployment finds it
SHORTCUTS = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_RATE = re.compile(r"[1-9]\d?[mhd]", re.ASCII)


def timer_options(schedule: str, zone: str | None) -> dict[str, str]:
    """Return the options of the timer for a schedule.

    ``schedule`` is a crontab expression (minute, hour, day of the month, month, day of the week), the same with seconds
    in front, a name such as ``@daily``, or a rate such as ``15m``. Raises BadConfiguration.
    """
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise BadConfiguration(f"zone is {zone!r}: give the name of a time zone, such as Europe/Berlin") from None
    if _RATE.fullmatch(schedule):
        if zone is not None:
            raise BadConfiguration(f"schedule is {schedule!r}: a rate has no zone")
        return {"name": NAME, "schedule_type": "Rate", "schedule": schedule}
    fields = SHORTCUTS.get(schedule, schedule).split()
    if len(fields) not in (5, 6):
        hint = "give five fields of a crontab, such as '0 3 * * *', or a rate, such as '15m'"
        raise BadConfiguration(f"schedule is {schedule!r}: {hint}")
    fields[-1] = _weekdays(fields[-1])
    text = " ".join(fields if len(fields) == 6 else ["0", *fields])
    return {"name": NAME, "schedule_type": "Cron", "schedule": f"CRON_TZ={zone} {text}" if zone else text}


def _weekdays(field: str) -> str:
    """Return a field of weekdays in which Sunday is 0. Crontabs allow 7 for it, also at the end of a range."""
    field = re.sub(r"\b([0-6])-7\b", lambda found: _through_sunday(int(found[1])), field)
    return re.sub(r"(?<![\d/])7\b", "0", field)


def _through_sunday(first: int) -> str:
    return "0-6" if first == 0 else f"{first}-6,0" if first < 6 else "6,0"
