"""Calendar schedules: ``[CRON_TZ=Area/City ]second minute hour day-of-month month [day-of-week]``.

Each field is ``*``, values, ranges and steps, comma between; ``a/n`` starts at a. A day must fit both day fields;
one of them is enough if neither is open, that is ``*`` or ``?``.
"""

from __future__ import annotations

import calendar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from engine import InvalidField

_ZONE = "CRON_TZ="
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Cron(Struct, frozen=True, kw_only=True):
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]  #: of the month
    months: frozenset[int]
    weekdays: frozenset[int]  #: 0 is Sunday
    either_day: bool  #: a day needs to fit one of ``days`` and ``weekdays`` only
    zone: str  #: empty: the engine's


class _Field(Struct, frozen=True, kw_only=True):
    name: str
    low: int
    high: int
    names: dict[str, int] = {}
    open: tuple[str, ...] = ("*",)  #: what stands for all values


_FIELDS = (
    _Field(name="second", low=0, high=59),
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of month", low=1, high=31, open=("*", "?")),
    _Field(name="month", low=1, high=12, names=_MONTHS),
    _Field(name="day of week", low=0, high=6, names=_DAYS, open=("*", "?")),
)


def read_cron(text: str) -> Cron:
    """Raises InvalidField with the field that is wrong, or if it would never fire."""
    zone, parts = _split(text)
    if len(parts) not in (5, 6):
        hint = "a Cron has 5 or 6 fields: second minute hour day-of-month month [day-of-week]"
        raise InvalidField("schedule", text, hint)
    parts = [*parts, "*"] if len(parts) == 5 else parts
    fields = (_read_field(text, field, part) for field, part in zip(_FIELDS, parts, strict=True))
    seconds, minutes, hours, days, months, weekdays = fields
    either = not _is_open(parts[3]) and not _is_open(parts[5])
    if not either and not any(min(days) <= _LONGEST_MONTH[month - 1] for month in months):
        raise InvalidField("schedule", text, "no such day is in these months, it would never fire")
    return Cron(
        seconds=seconds,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        either_day=either,
        zone=zone,
    )


def _split(text: str) -> tuple[str, list[str]]:
    parts = text.split()
    if not parts or not parts[0].startswith(_ZONE):
        return "", parts
    zone = parts[0].removeprefix(_ZONE)
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidField("schedule", text, f"{zone!r} is no time zone this machine knows") from None
    return zone, parts[1:]


def _is_open(part: str) -> bool:
    return any(piece.removesuffix("/1") in ("*", "?") for piece in part.split(","))


def _read_field(text: str, field: _Field, part: str) -> frozenset[int]:
    values: set[int] = set()
    for piece in part.split(","):
        span, slash, step = piece.partition("/")
        low, high = _read_span(text, field, span, open_ended=bool(slash))
        if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
            raise InvalidField("schedule", text, f"the step {step!r} of the {field.name} must be a number above 0")
        values.update(range(low, high + 1, int(step) if slash else 1))
    return frozenset(values)


def _read_span(text: str, field: _Field, span: str, *, open_ended: bool) -> tuple[int, int]:
    if span in field.open:
        return field.low, field.high
    first, dash, last = span.partition("-")
    low = _read_value(text, field, first)
    alone = field.high if open_ended else low
    high = _read_value(text, field, last) if dash else alone
    if low > high:
        raise InvalidField("schedule", text, f"the {field.name} {span} goes backwards")
    return low, high


def _read_value(text: str, field: _Field, value: str) -> int:
    number = field.names.get(value.lower(), -1)
    if value.isascii() and value.isdigit() and len(value) <= 2:
        number = int(value)
    if not field.low <= number <= field.high:
        also = " or a name" if field.names else ""
        allowed = f"the {field.name} {value!r} must be from {field.low} to {field.high}{also}"
        raise InvalidField("schedule", text, allowed)
    return number
