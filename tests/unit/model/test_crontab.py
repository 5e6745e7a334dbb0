"""Crontabs as Cron expressions of the platform."""

from __future__ import annotations

import pytest

from engine.deploy.timers import for_api, read_schedule
from engine.errors import InvalidField, UsageError
from engine.model.crontab import five_fields, from_crontab
from plugins.timer.options import TimerOptions


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
        ("0 0 * * 0-7,3", "0 0 0 * * 0-6,3"),
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
    assert [five_fields({"schedule": one}) for one in ("0 0 3 * * *", "@every 1h30m", "15m", "")] == [""] * 4
    assert five_fields({"crontab": "*/10 * * * *"}) == ""
