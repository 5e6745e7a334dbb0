"""Due times of schedules."""

from __future__ import annotations

from typing import Literal

import pytest

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
