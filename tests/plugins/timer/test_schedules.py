"""Due times of schedules."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim

from engine.errors import InvalidField
from engine.model.cron import Cron, read_cron
from plugins.timer.schedule import Interval, read_schedule


@pytest.mark.parametrize(
    ("kind", "text", "seconds"),
    [
        *(("Rate", "1m", 60), ("Rate", "60m", 3600), ("Rate", "1h", 3600), ("Rate", "24h", 86_400)),
        ("Rate", "30d", 30 * 86_400),
        *(("Cron", "@every 1h30m", 5400), ("Cron", "@every 90s", 90), ("Cron", "@every 1.5h", 5400)),
        *(("Cron", "@every 500ms", 1), ("Cron", "@every 2500ms", 2)),
    ],
)
def test_intervals_are_rates_or_durations_in_whole_seconds(
    kind: Literal["Rate", "Cron"], text: str, seconds: int
) -> None:
    assert read_schedule(kind, text) == Interval(seconds=seconds)


@pytest.mark.parametrize("text", ["@every", "@every ", "@every 5", "@every 5x", "@every 0s", "@daily", "@every 1h 5x"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        read_schedule("Cron", text)


@pytest.mark.parametrize(
    "text", ["@every 1h", "61m", "25h", "31d", "0m", "00m", "3", "m", "1.5h", "3s", " 3m", "3M", "-1m", "٣m"]
)
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(InvalidField, match="1m to 60m, 1h to 24h or 1d to 30d"):
        read_schedule("Rate", text)


def test_a_calendar_names_months_and_days_in_any_case() -> None:
    cron = read_cron("0 0,30 8-10 ? JAN-mar Mon-Fri")

    assert [*map(sorted, (cron.minutes, cron.hours))] == [[0, 30], [8, 9, 10]]
    assert [*map(sorted, (cron.months, cron.weekdays))] == [[1, 2, 3], [1, 2, 3, 4, 5]]
    assert cron.days == set(range(1, 32))


def test_the_day_of_week_may_be_left_off() -> None:
    assert read_cron("0 0 8 1 *") == read_cron("0 0 8 1 * *")


def test_steps_begin_at_their_start() -> None:
    cron = read_cron("5/20 */25 10-20/5 * * ?")

    assert [*map(sorted, (cron.seconds, cron.minutes, cron.hours))] == [[5, 25, 45], [0, 25, 50], [10, 15, 20]]


@pytest.mark.parametrize(
    ("days", "weekdays", "either"),
    [
        ("1", "1", True),
        ("1", "*", False),
        ("?", "1", False),
        ("*", "*", False),
        ("*/2", "1", True),
        ("*/1", "1", False),
    ],
)
def test_two_day_fields_are_alternatives_if_neither_is_open(days: str, weekdays: str, either: bool) -> None:
    assert read_cron(f"0 0 0 {days} * {weekdays}").either_day is either


def test_a_time_zone_may_stand_in_front() -> None:
    assert read_cron("CRON_TZ=Asia/Shanghai 0 30 4 * * *").zone == "Asia/Shanghai"
    assert read_cron("0 30 4 * * *").zone == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "5 or 6 fields"),
        ("* * * *", "5 or 6 fields"),
        ("* * * * * * *", "5 or 6 fields"),
        ("60 * * * * *", "the second '60' must be from 0 to 59"),
        ("0 60 * * * *", "the minute"),
        ("0 0 24 * * *", "the hour"),
        ("0 0 0 0 * *", "the day of month"),
        ("0 0 0 32 * *", "the day of month"),
        ("0 0 0 1 13 *", "the month '13' must be from 1 to 12 or a name"),
        ("0 0 0 1 * 7", "the day of week"),
        ("0 0 0 1 Foo *", "the month"),
        ("0 0 ? * * *", "the hour"),
        ("0 */0 * * * *", "the step '0'"),
        ("0 */x * * * *", "the step 'x'"),
        ("0 30-10 * * * *", "goes backwards"),
        ("0 1,,2 * * * *", "the minute ''"),
        ("0 1- * * * *", "the minute ''"),
        ("0 0 0 31 2,4 *", "never fire"),
        ("CRON_TZ=Nowhere/City 0 0 0 * * *", "no time zone"),
        ("CRON_TZ=../../etc/passwd 0 0 0 * * *", "no time zone"),
    ],
)
def test_other_calendars_are_refused_with_the_field_that_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(InvalidField, match=problem) as caught:
        read_cron(text)

    assert caught.value.field == "schedule"


def test_an_impossible_date_fires_if_a_weekday_may_do_instead() -> None:
    cron = read_schedule("Cron", "0 0 0 31 2 1")

    assert isinstance(cron, Cron)
    assert cron.either_day


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
