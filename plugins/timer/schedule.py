"""Schedules of timers, and the position of a timer in its due times.

A schedule is a rate such as ``15m``, an interval such as ``@every 1h30m``, or a Cron text of six fields.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from engine import Cron, InvalidField, read_cron

RATES = {"m": (60, 60), "h": (24, 3_600), "d": (30, 86_400)}  #: maximum and seconds, keyed by unit
_RATE = re.compile(r"([1-9]\d?)([mhd])", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 10 * 366 * 86_400.0
_EVERY = "@every "
CURSOR = "due"  #: name of the cursor with the position


class Interval(Struct, frozen=True, kw_only=True):
    seconds: float


Schedule = Interval | Cron


class Timetable(Struct, frozen=True, kw_only=True):
    """Due times of a timer's schedule, in seconds since the epoch."""

    schedule: Schedule
    since: float  #: beginning of intervals
    zone: tzinfo  #: time zone of Cron texts without one
    until: float = math.inf  #: end of all due times

    def next_after(self, moment: float) -> float:
        """Return the first due time after ``moment``, or infinity if there is none."""
        if isinstance(self.schedule, Cron):
            due = self.schedule.next_after(moment, self.zone)
        else:
            seconds = self.schedule.seconds
            passed = math.floor((moment - self.since) / seconds)
            due = self.since + (passed + 1) * seconds
            due += seconds if due <= moment else 0.0
        return due if due <= self.until else math.inf

    def local(self, due: float) -> datetime:
        """Return a due time in the time zone of the schedule."""
        own = self.schedule.zone if isinstance(self.schedule, Cron) else ""
        return datetime.fromtimestamp(math.floor(due), ZoneInfo(own) if own else self.zone)

    def period(self, moment: float) -> float:
        """Return the seconds between the next two due times after ``moment``."""
        due = self.next_after(moment)
        return self.next_after(due) - due

    def last_until(self, moment: float, after: float) -> float | None:
        """Return the last due time that is later than ``after`` and at most ``moment``, or None if there is none."""
        moment = min(moment, self.until)
        if isinstance(self.schedule, Cron):
            due = self.schedule.last_until(moment, after, self.zone)
        else:
            seconds = self.schedule.seconds
            due = self.since + math.floor((moment - self.since) / seconds) * seconds
        return due if due is not None and due > after else None


def read_schedule(schedule_type: str, text: str) -> Schedule:
    """Return the parsed schedule.

    Raises InvalidField, which names the invalid part, if the text is not a valid schedule.
    """
    if schedule_type == "Rate":
        return _read_rate(text)
    if text.startswith("@"):
        return _read_every(text)
    return read_cron(text)


def _read_rate(text: str) -> Interval:
    match = _RATE.fullmatch(text)
    most, seconds = RATES[match[2]] if match else (0, 0)
    if match is None or int(match[1]) > most:
        raise InvalidField("schedule", text, "a Rate is 1m to 60m, 1h to 24h or 1d to 30d")
    return Interval(seconds=int(match[1]) * seconds)


def _read_every(text: str) -> Interval:
    duration = text.removeprefix(_EVERY).strip() if text.startswith(_EVERY) else ""
    if not duration or _DURATION.sub("", duration):
        raise InvalidField("schedule", text, "needs @every and a duration of h, m, s, ms, us, ns, such as 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))
    if not 0 < seconds <= LONGEST:
        raise InvalidField("schedule", text, "the duration must be above 0 and below ten years")
    return Interval(seconds=max(1.0, float(int(seconds))))


class Position(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a timer, the last handled due time, in the due times of one generation of the trigger.

    A clock that is ahead moves the cursor ahead. When the clock is set back, the cursor is moved back, too; otherwise
    the timer would not fire for as long as the clock was wrong. Idempotency keys drop due times that already had a
    request. A clock that is behind moves the cursor back in the same manner. When the clock is right again, due times
    up to ``handled_until`` do not count as missed: they were handled before, and their keys may have expired.
    """

    generation: int
    rule: tuple[str, str] | None = None  #: type and text of the generation's schedule; None: of an earlier version
    since: float = 0.0  #: beginning of the generation
    due: float  #: last handled due time
    asked: float = 0.0  #: latest due time that had a request; unchanged when the cursor is moved back

    def after(self, due: float, *, asked: bool) -> Position:
        """Return the position after due times up to ``due`` were handled.

        ``asked`` is True if a request was made for ``due``.
        """
        return replace(self, due=due, asked=max(self.asked, due) if asked else self.asked)

    def is_ahead(self, table: Timetable, now: float) -> bool:
        """Return whether the cursor was stored while the machine's clock was ahead.

        If the clock was set back by at most one period, the answer is False, unless the last due time was skipped
        without a request.
        """
        return self.due > now and (self.due > self.asked or self.due > now + table.period(now))

    def handled_until(self, since: float, now: float) -> float:
        """Return the time up to which all due times were handled, so that none of them counts as missed."""
        return max(moment for moment in (self.due, self.asked, since) if moment <= max(now, self.due))
