"""Next and previous times of a calendar, compared with a search by the second, and lines of a crontab."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from engine.deploy.timers import for_api, read_schedule
from engine.errors import InvalidField, UsageError
from engine.model.cron import Cron, read_cron
from engine.model.crontab import five_fields, from_crontab
from plugins.timer.options import TimerOptions

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
    times, seen = [], set()
    before = datetime.fromtimestamp(begin - 1, zone).replace(tzinfo=None, fold=0)
    for second in range(begin, end):
        local = datetime.fromtimestamp(second, zone).replace(tzinfo=None, fold=0)
        skipped = int((local - before).total_seconds()) - 1
        late = any(fits(cron, before + timedelta(seconds=more)) for more in range(1, skipped + 1))
        if (fits(cron, local) and (cron.elapsed or local not in seen)) or (late and not cron.elapsed):
            times.append(second)
        seen.add(local)
        before = local
    return times


@pytest.mark.parametrize(("name", "change"), CHANGES)
@pytest.mark.parametrize("text", TEXTS)
def test_times_around_a_change_of_the_clock_are_those_of_the_rule(name: str, change: int, text: str) -> None:
    cron, zone, begin, end = read_cron(text), ZoneInfo(name), change - 2 * HOUR, change + 3 * HOUR

    times: list[float] = []
    while (after := cron.next_after(times[-1] if times else begin - 1, zone)) < end:
        times.append(after)

    assert times == times_of(cron, begin, end, zone)
    assert [cron.last_until(due + 0.5, begin, zone) for due in times] == times


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


# --- lines of a crontab --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crontab", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/10 * * * *", "0 */10 * * * *"),
        (" CRON_TZ=Europe/Berlin */5  8-17 * JAN mon-fri", "CRON_TZ=Europe/Berlin 0 */5 8-17 * JAN mon-fri"),
        ("30 0 3 * * ?", "30 0 3 * * ?"),
        ("CRON_TZ=UTC @weekly", "CRON_TZ=UTC 0 0 0 * * 0"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 5-6,0"),
        ("0 0 * * 0-7,3", "0 0 0 * * 0-6,0,3"),
        ("0 0 * * 0-7/2", "0 0 0 * * 0,2,4,6"),
        ("0 0 * * 1-7/3,7", "0 0 0 * * 1,4,0,0"),
        ("0 0 */7 * */7", "0 0 0 */7 * */7"),
    ],
)
def test_a_crontab_becomes_a_cron_expression_with_seconds(crontab: str, expected: str) -> None:
    assert from_crontab(crontab) == expected
    TimerOptions(name="t", schedule_type="Cron", schedule=expected)


@pytest.mark.parametrize(
    ("crontab", "problem"),
    [
        ("daily", "give five fields"),
        ("", "give five fields"),
        ("0 3 * *", "give five fields"),
        ("CRON_TZ=UTC", "give five fields"),
        ("0 25 * * *", "the hour '25' must be from 0 to 23"),
        ("*/5 * * * * root", "the day of week 'root' must be"),
        ("CRON_TZ=Mars @daily", "no time zone 'Mars' is installed"),
    ],
)
def test_a_bad_crontab_is_refused_by_its_own_text(crontab: str, problem: str) -> None:
    with pytest.raises(InvalidField) as raised:
        from_crontab(crontab)
    assert str(raised.value).startswith(f"crontab is {crontab!r}: {problem}")


def test_the_schedule_of_an_app_is_a_crontab_in_a_zone_or_a_rate() -> None:
    assert read_schedule("15m", None) == {"schedule_type": "Rate", "schedule": "15m"}
    assert read_schedule("0 3 * * *", "Europe/Berlin")["schedule"] == "CRON_TZ=Europe/Berlin 0 0 3 * * *"
    for schedule, zone in (("daily", None), ("1h", "UTC"), ("@daily", "Mars")):
        with pytest.raises(UsageError, match=r"^schedule is "):
            read_schedule(schedule, zone)


def test_event_data_with_a_crontab_becomes_what_the_api_takes() -> None:
    expected = {"name": "n", "schedule_type": "Cron", "schedule": "0 0 3 * * *"}

    assert for_api("timer", {"name": "n", "crontab": "0 3 * * *"}) == expected
    assert for_api("TIMER", expected) == expected
    assert for_api("KAFKA", {"crontab": "0 3 * * *"}) == {"crontab": "0 3 * * *"}
    for other in ({"schedule": "15m"}, {"schedule_type": "Rate"}, {"crontab": 5}):
        with pytest.raises(UsageError, match=r"crontab is .*: give it as text, in place of schedule"):
            for_api("TIMER", {"crontab": "0 3 * * *", **other})


def test_five_fields_are_explained_with_what_to_write_for_minutes() -> None:
    said = five_fields({"schedule_type": "Cron", "schedule": "CRON_TZ=Europe/Berlin */10 * * * *"})

    assert said.startswith("schedule is 'CRON_TZ=Europe/Berlin */10 * * * *': its five fields are second, minute, hour")
    assert "'CRON_TZ=Europe/Berlin 0 */10 * * * *'" in said
    assert "'CRON_TZ=Europe/Berlin */10 * * * * *'" in said
    assert [five_fields({"schedule": schedule}) for schedule in ("0 0 3 * * *", "@every 1h30m", "15m", "")] == [""] * 4
    assert five_fields({"crontab": "*/10 * * * *"}) == ""
