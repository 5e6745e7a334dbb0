"""Calendar schedules: ``[CRON_TZ=Area/City ]second minute hour day-of-month month [day-of-week]``.

Each field is ``*``, or a comma-separated list of values, ranges and steps; ``a/n`` means every n-th value from a. If
day-of-month or day-of-week is ``*`` or ``?``, a day must match both; otherwise one match is enough (FunctionGraph's
documented TIMER schedules). Timers and reserved instances use the same syntax. No library parses this dialect with
seconds in the first field, ``?``, and a leading time zone.

A schedule in which neither hour nor minute starts with ``*`` follows local time. If a clock change skips that time, the
schedule fires right after the skipped period; if a change repeats that time, only the first occurrence counts. Any
other schedule, such as one with the minute ``*/5``, follows elapsed time: it keeps its interval across clock changes.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from engine.errors import InvalidField

ZONE = "CRON_TZ="
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
    either_day: bool  #: a match of ``days`` or of ``weekdays`` is enough
    elapsed: bool  #: hour or minute is open: the schedule follows elapsed time
    zone: str  #: name of the time zone; empty: chosen by the caller

    def next_after(self, moment: float, zone: tzinfo = UTC) -> float:
        """Return the first time after ``moment`` at which the schedule fires. Times are seconds since the epoch.

        ``zone`` applies to a schedule that names no time zone. Returns infinity if the schedule does not fire before
        the year 10000.
        """
        used_zone = ZoneInfo(self.zone) if self.zone else zone
        try:
            return _next_elapsed(self, moment, used_zone) if self.elapsed else _next_fixed(self, moment, used_zone)
        except (OverflowError, ValueError, OSError):  # beyond the year 9999
            return math.inf

    def last_until(self, moment: float, begin: float, zone: tzinfo = UTC) -> float | None:
        """Return the last time at which the schedule fires from ``begin`` up to and including ``moment``.

        Return None if it does not fire.
        """
        # ``next_after`` is monotonic: search for the last moment from which it is not later than ``moment``.
        low, high = math.ceil(begin) - 1, math.floor(moment)
        if high <= low or self.next_after(low, zone) > moment:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.next_after(middle, zone) <= moment else (low, middle)
        return self.next_after(low, zone)


class _Field(Struct, frozen=True, kw_only=True):
    name: str
    low: int
    high: int
    names: dict[str, int] = {}
    open: tuple[str, ...] = ("*",)  #: texts that mean all values


_FIELDS = (
    _Field(name="second", low=0, high=59),
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of month", low=1, high=31, open=("*", "?")),
    _Field(name="month", low=1, high=12, names=_MONTHS),
    _Field(name="day of week", low=0, high=6, names=_DAYS, open=("*", "?")),
)


def read_cron(text: str) -> Cron:
    """Parse a schedule. Raise InvalidField if a part, such as the time zone, is invalid, or if it would never fire."""
    zone, parts = _split(text)
    if len(parts) not in (5, 6):
        hint = "a Cron has 5 or 6 fields: second minute hour day-of-month month [day-of-week]"
        raise InvalidField("schedule", text, hint)
    parts = [*parts, "*"] if len(parts) == 5 else parts
    try:
        seconds, minutes, hours, days, months, weekdays = map(_read_field, range(len(_FIELDS)), parts)
    except InvalidField as error:
        raise InvalidField("schedule", text, error.allowed) from None
    either = not _is_open(parts[3]) and not _is_open(parts[5])
    if not either and not any(min(days) <= _LONGEST_MONTH[month - 1] for month in months):
        raise InvalidField("schedule", text, "these months have no such day, so the schedule would never fire")
    return Cron(
        seconds=seconds,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        either_day=either,
        elapsed=any(part.startswith("*") for part in parts[1:3]),
        zone=zone,
    )


def _split(text: str) -> tuple[str, list[str]]:
    parts = text.split()
    if not parts or not parts[0].startswith(ZONE):
        return "", parts
    zone = parts[0].removeprefix(ZONE)
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidField("schedule", text, f"no time zone {zone!r} is installed on this machine") from None
    return zone, parts[1:]


def _is_open(part: str) -> bool:
    return any(piece.removesuffix("/1") in ("*", "?") for piece in part.split(","))


@lru_cache(1_000)  # thousands of schedules share the sets of equal parts
def _read_field(number: int, part: str) -> frozenset[int]:
    field, values = _FIELDS[number], set[int]()
    for piece in part.split(","):
        span, slash, step = piece.partition("/")
        low, high = _read_span(field, span, open_ended=bool(slash))
        if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
            raise InvalidField("schedule", part, f"the step {step!r} of the {field.name} must be a number above 0")
        values.update(range(low, high + 1, int(step) if slash else 1))
    return frozenset(values)


def _read_span(field: _Field, span: str, *, open_ended: bool) -> tuple[int, int]:
    if span in field.open:
        return field.low, field.high
    first, dash, last = span.partition("-")
    low = _read_value(field, first)
    alone = field.high if open_ended else low
    high = _read_value(field, last) if dash else alone
    if low > high:
        raise InvalidField("schedule", span, f"the {field.name} {span} goes backwards")
    return low, high


def _read_value(field: _Field, value: str) -> int:
    number = field.names.get(value.lower(), -1)
    if value.isascii() and value.isdigit() and len(value) <= 2:
        number = int(value)
    if not field.low <= number <= field.high:
        also = " or a name" if field.names else ""
        allowed = f"the {field.name} {value!r} must be from {field.low} to {field.high}{also}"
        raise InvalidField("schedule", value, allowed)
    return number


# --- Calendar --------------------------------------------------------------------------------------------------------

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def _next_fixed(cron: Cron, moment: float, zone: tzinfo) -> float:
    """Return the first time after ``moment`` at which a schedule that follows local time fires.

    A local time that a clock change skips fires at the end of the change; one that it repeats, at the first occurrence.
    """
    local = _local(math.floor(moment), zone)
    while True:
        local = _next_local(cron, local + _SECOND)
        due = _moment_of(local, zone)
        if due > moment:
            return due


def _next_elapsed(cron: Cron, moment: float, zone: tzinfo) -> float:
    """Return the first time after ``moment`` at which a schedule that follows elapsed time fires.

    The search takes one period of constant UTC offset after another, as local and elapsed time advance equally in each.
    """
    begin = math.floor(moment) + 1
    while True:
        end, offset = _same_offset(begin, zone)
        due = _next_local(cron, _local(begin, zone)).replace(tzinfo=UTC).timestamp() - offset
        if due < end:
            return due
        # No clock change reaches two days, so no firing time is more than two days earlier than at this offset.
        begin = max(end, math.floor(due) - 2 * 86_400)


def _same_offset(begin: int, zone: tzinfo) -> tuple[int, float]:
    """Return the time until which the zone keeps its UTC offset of ``begin``, at most a day later, and this offset."""
    offset, low, high = _offset(begin, zone), begin, begin + 86_400
    if _offset(high, zone) == offset:
        return high, offset
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
    return high, offset


def _next_local(cron: Cron, start: datetime) -> datetime:
    """Return the first local time not before ``start`` that matches the schedule's fields."""
    clock = _first_clock(cron, start.time()) if _fits(cron, start.date()) else None
    if clock is not None:
        return datetime.combine(start.date(), clock)
    day = _first_day(cron, start.date() + _DAY)
    return datetime.combine(day, time(min(cron.hours), min(cron.minutes), min(cron.seconds)))


def _first_day(cron: Cron, day: date) -> date:
    while not _fits(cron, day):
        if day.month not in cron.months:
            day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        else:
            day += _DAY
    return day


def _fits(cron: Cron, day: date) -> bool:
    if day.month not in cron.months:
        return False
    fits: Callable[[tuple[bool, bool]], bool] = any if cron.either_day else all
    return fits((day.day in cron.days, day.isoweekday() % 7 in cron.weekdays))


def _first_clock(cron: Cron, start: time) -> time | None:
    """Return the first time of day not before ``start`` that matches the schedule's fields; None if none does."""
    later = min((second for second in cron.seconds if second >= start.second), default=None)
    if start.hour in cron.hours and start.minute in cron.minutes and later is not None:
        return time(start.hour, start.minute, later)
    minute = min((minute for minute in cron.minutes if minute > start.minute), default=None)
    if start.hour in cron.hours and minute is not None:
        return time(start.hour, minute, min(cron.seconds))
    hour = min((hour for hour in cron.hours if hour > start.hour), default=None)
    return None if hour is None else time(hour, min(cron.minutes), min(cron.seconds))


def _local(moment: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def _offset(moment: int, zone: tzinfo) -> float:
    """Return the seconds by which the zone is ahead of UTC at ``moment``."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _moment_of(local: datetime, zone: tzinfo) -> float:
    first = local.replace(tzinfo=zone).timestamp()
    if _local(math.floor(first), zone) == local:
        return first
    # In a gap, Python applies the offset before the gap to one fold and the offset after it to the other: the two
    # moments enclose the change.
    low, high = sorted((first, local.replace(tzinfo=zone, fold=1).timestamp()))
    return _same_offset(math.floor(low), zone)[0] if low < high else first
