"""Calendars in all time zones over ten years, compared with a library and with the rule itself.

The library (cronsim) checks moments away from clock changes, where implementations agree. Around each change an
oracle applies the documented rule minute by minute. A fixed local time that is skipped occurs once, right after the
gap. A fixed local time that occurs twice counts once, the first time. With an open hour or minute, each matching
moment counts.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim

from engine.model.cron import Cron, read_cron

BEGIN = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
YEARS = 10
END = int(datetime(2026 + YEARS, 1, 1, tzinfo=UTC).timestamp())
DAY, HOUR, MINUTE = 86_400, 3_600, 60
SAMPLE = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Africa/Cairo",
)
#: Calendars with fixed and with open hours or minutes. Last field: day of the week, 0 for Sunday in both dialects.
AFAR = ("0 30 2 */3 * *", "15 45 */9 1 */4 *")
NEAR = ("0 30 2 * * *", "0 15 0,1,3 * * *", "0 */20 * * * *", "0 0 3 * * 0", "0 59 23 * * *")

Behaviour = tuple[tuple[int, int], ...]  #: moments of changes, with the new offset; the first is the start


def behaviour(zone: ZoneInfo, end: int) -> Behaviour:
    changes = [(BEGIN, offset(zone, BEGIN))]
    for moment in range(BEGIN + 5 * DAY, end + 5 * DAY, 5 * DAY):
        if offset(zone, moment) != changes[-1][1]:
            # At most one change in five days: Morocco's two changes of a year are four weeks apart.
            low, high = moment - 5 * DAY, moment
            at = bisect.bisect_left(range(low, high), True, key=lambda second: offset(zone, second) != changes[-1][1])
            changes.append((low + at, offset(zone, moment)))
    return tuple(changes)


def offset(zone: ZoneInfo, moment: int) -> int:
    shift = datetime.fromtimestamp(moment, zone).utcoffset()
    assert shift is not None
    return int(shift.total_seconds())


def due_times(cron: Cron, zone: ZoneInfo, begin: float, end: float) -> Iterator[int]:
    moment: float = begin - 1
    while (moment := cron.next_after(moment, zone)) < end:
        assert moment == int(moment)
        yield int(moment)


def check_afar(text: str, zone: ZoneInfo, changes: Behaviour, end: int) -> int:
    """Compare with the library, except two days around each change. Return the number of equal due times."""
    start = datetime.fromtimestamp(BEGIN, zone) - timedelta(seconds=1)
    theirs = itertools.takewhile(lambda moment: moment < end, (int(d.timestamp()) for d in CronSim(text, start)))
    near = [change for change, _ in changes[1:]]

    def is_afar(moment: int) -> bool:
        place = bisect.bisect(near, moment)
        return all(abs(moment - change) > DAY for change in near[max(0, place - 1) : place + 1])

    ours = [moment for moment in due_times(read_cron(text), zone, BEGIN, end) if is_afar(moment)]
    assert ours == [moment for moment in theirs if is_afar(moment)], (text, zone.key)
    return len(ours)


def check_near(text: str, zone: ZoneInfo, change: int) -> None:
    begin, end = change - 4 * HOUR, change + 4 * HOUR
    times = list(due_times(read_cron(text), zone, begin, end))
    assert times == list(by_the_rule(read_cron(text), zone, begin, end)), (text, zone.key, change)


def by_the_rule(cron: Cron, zone: ZoneInfo, begin: int, end: int) -> Iterator[int]:
    """Yield due times found minute by minute. Only for calendars whose second is 0."""
    seen: set[datetime] = set()
    for moment in range(begin - 24 * HOUR, begin, MINUTE):
        seen.add(local(zone, moment))
    for moment in range(begin, end, MINUTE):
        here, before = local(zone, moment), local(zone, moment - MINUTE)
        skipped = [before + timedelta(minutes=more) for more in range(1, int((here - before).total_seconds()) // 60)]
        again = here in seen
        seen.add(here)
        late = not cron.elapsed and any(fits(cron, gone) for gone in skipped)
        if late or (fits(cron, here) and (cron.elapsed or not again)):
            yield moment


def local(zone: ZoneInfo, moment: int) -> datetime:
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def fits(cron: Cron, moment: datetime) -> bool:
    days = (moment.day in cron.days, moment.isoweekday() % 7 in cron.weekdays)
    clock = moment.minute in cron.minutes and moment.hour in cron.hours and moment.month in cron.months
    return clock and (any(days) if cron.either_day else all(days))


@pytest.mark.parametrize("name", SAMPLE)
def test_two_years_of_a_few_zones(name: str) -> None:
    zone, end = ZoneInfo(name), BEGIN + 2 * 365 * DAY
    changes = behaviour(zone, end)

    assert all(check_afar(text, zone, changes, end) > 10 for text in AFAR)
    for text, (change, _) in itertools.product(NEAR, changes[1:3]):
        check_near(text, zone, change)


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_ten_years_of_all_zones() -> None:
    zones = {name: ZoneInfo(name) for name in sorted(available_timezones())}
    # Zones with equal behaviour are tested once: about 600 names stand for about 60 behaviours.
    apart = {behaviour(zone, END): zone for zone in zones.values()}

    agreed = sum(check_afar(text, zone, changes, END) for changes, zone in apart.items() for text in AFAR)
    near = [(zone, change) for changes, zone in apart.items() for change, _ in changes[1:]]
    for text, (zone, change) in itertools.product(NEAR, near):
        check_near(text, zone, change)

    assert (len(zones) > 400, len(apart) > 50, len(near) > 250) == (True, True, True)
    assert agreed > len(apart) * 1000
