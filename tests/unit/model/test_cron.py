"""Next and previous times of a calendar, compared with a search by the second around clock changes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from engine.model.cron import Cron, read_cron

HOUR = 3600
#: Zones with a moment at which their clocks change.
CHANGES = [
    ("Europe/Berlin", 1774746000),  # 02:00 becomes 03:00
    ("Europe/Berlin", 1792890000),  # 03:00 becomes 02:00
    ("Australia/Lord_Howe", 1775314800),  # back by half an hour
]
TEXTS = ["0 30 2 * * *", "0 */20 * * * *", "0/30 10,20 1-3 * * *", "*/25 * 2 * * *", "0 0 2 * * 0"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def fits(cron: Cron, local: datetime) -> bool:
    days = (local.day in cron.days, local.isoweekday() % 7 in cron.weekdays)
    clock = local.second in cron.seconds and local.minute in cron.minutes and local.hour in cron.hours
    return clock and local.month in cron.months and (any(days) if cron.either_day else all(days))


def times_of(cron: Cron, begin: int, end: int, zone: ZoneInfo) -> list[int]:
    """Return the due times by the rule, found second by second."""
    found, seen = [], set()
    before = datetime.fromtimestamp(begin - 1, zone).replace(tzinfo=None, fold=0)
    for second in range(begin, end):
        local = datetime.fromtimestamp(second, zone).replace(tzinfo=None, fold=0)
        skipped = int((local - before).total_seconds()) - 1
        late = any(fits(cron, before + timedelta(seconds=more)) for more in range(1, skipped + 1))
        if (fits(cron, local) and (cron.elapsed or local not in seen)) or (late and not cron.elapsed):
            found.append(second)
        seen.add(local)
        before = local
    return found


@pytest.mark.parametrize(("name", "change"), CHANGES)
@pytest.mark.parametrize("text", TEXTS)
def test_times_around_a_change_of_the_clock_are_those_of_the_rule(name: str, change: int, text: str) -> None:
    cron, zone, begin, end = read_cron(text), ZoneInfo(name), change - 2 * HOUR, change + 3 * HOUR

    found: list[float] = []
    while (after := cron.next_after(found[-1] if found else begin - 1, zone)) < end:
        found.append(after)

    assert found == times_of(cron, begin, end, zone)
    assert [cron.last_until(one + 0.5, begin, zone) for one in found] == found


@pytest.mark.parametrize(
    ("text", "after", "found"),
    [
        ("0 0 0 29 2 *", "2024-02-29T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("0 * 0 29 2 *", "2024-03-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("59 59 23 31 12 *", "2026-12-31T23:59:59+00:00", "2027-12-31T23:59:59+00:00"),
        ("0 0 0 13 * Fri", "2026-11-01T00:00:00+00:00", "2026-11-06T00:00:00+00:00"),
        ("0 0 9 * * Mon-Fri", "2026-11-27T09:00:00+00:00", "2026-11-30T09:00:00+00:00"),
        ("CRON_TZ=Asia/Shanghai 0 0 8 * * *", "2026-11-27T00:00:00+00:00", "2026-11-28T00:00:00+00:00"),
        ("0 0 8 * * *", "2026-11-27T08:00:00.25+00:00", "2026-11-28T08:00:00+00:00"),
    ],
)
def test_the_next_time_is_behind_the_moment(text: str, after: str, found: str) -> None:
    assert read_cron(text).next_after(moment(after), UTC) == moment(found)


def test_the_last_time_is_not_before_its_beginning() -> None:
    cron, noon = read_cron("0 0 12 * * *"), moment("2026-11-27T12:00:00+00:00")

    assert cron.last_until(noon, noon) == noon
    assert cron.last_until(noon + 86_399, 0) == noon
    assert cron.last_until(noon - 1, noon - 86_399) is None
    assert cron.last_until(noon + 86_399, noon + 1) is None


def test_no_time_comes_after_the_calendars_end() -> None:
    assert read_cron("0 0 0 * * *").next_after(1e18) == math.inf
    assert read_cron("0 * * * * *").next_after(moment("9999-12-31T23:59:00+00:00")) == math.inf
