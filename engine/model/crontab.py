"""Crontabs, whose first field is the minute, as Cron expressions, whose first field is the second.

The API knows the latter only. Commands, manifests, apps and the console translate what users give as a crontab.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidField
from engine.model.cron import ZONE, read_cron

SHORTCUTS = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = 5


def from_crontab(text: str, field: str = "crontab") -> str:
    """Return the Cron expression for a crontab, to which ``CRON_TZ=Area/City`` in front gives a time zone.

    A crontab has five fields: minute, hour, day of the month, month, day of the week. It may have seconds in front, or
    be a name such as ``@daily``. Raises InvalidField, which names ``field``.
    """
    zone, fields = _split(text)
    fields = SHORTCUTS.get(" ".join(fields), " ".join(fields)).split()
    if len(fields) not in (_FIELDS, _FIELDS + 1):
        raise InvalidField(field, text, "give five fields of a crontab, such as '0 3 * * *' for 03:00 each day")
    fields[-1] = _weekdays(fields[-1])
    schedule = " ".join([*zone, *["0"][len(fields) - _FIELDS :], *fields])
    try:
        read_cron(schedule)
    except InvalidField as problem:
        raise InvalidField(field, text, problem.allowed) from None
    return schedule


def five_fields(data: Mapping[str, Any]) -> str:
    """Return how a schedule of five fields in ``event_data`` is read, and how to write it otherwise; else empty."""
    schedule = str(data.get("schedule", ""))
    zone, fields = _split(schedule)
    if len(fields) != _FIELDS:
        return ""
    minutes, same = " ".join([*zone, "0", *fields]), " ".join([*zone, *fields, "*"])
    return (
        f"schedule is {schedule!r}: its five fields are second, minute, hour, day of the month and month. If the first "
        f"one means minutes, give it as crontab, or as schedule {minutes!r}; if not, write {same!r}"
    )


def _split(text: str) -> tuple[list[str], list[str]]:
    """Return the words of an expression that name the time zone, one or none, and its fields."""
    words = text.split()
    zone = [word for word in words[:1] if word.startswith(ZONE)]
    return zone, words[len(zone) :]


def _weekdays(field: str) -> str:
    """Return a field of weekdays in which Sunday is 0. Crontabs allow 7 for it, also at the end of a range."""
    field = re.sub(r"\b([0-6])-7/([1-9]\d*)\b", _through_sunday, field)
    return re.sub(r"(?<![\d/])7\b", "0", re.sub(r"\b([0-6])-7\b", r"\1-6,0", field))


def _through_sunday(found: re.Match[str]) -> str:
    return ",".join(str(day % 7) for day in range(int(found[1]), 8, int(found[2])))
