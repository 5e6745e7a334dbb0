"""Schedules in crontab form, as options of timers."""

from __future__ import annotations

import pytest
from functiond import BadConfiguration
from functiond.schedule import timer_options

from plugins.timer.options import TimerOptions


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        ("0 3 * * *", None, "0 0 3 * * *"),
        ("*/5 8-17 * JAN mon-fri", "Europe/Berlin", "CRON_TZ=Europe/Berlin 0 */5 8-17 * JAN mon-fri"),
        ("30 0 3 * * ?", None, "30 0 3 * * ?"),
        ("@weekly", "UTC", "CRON_TZ=UTC 0 0 0 * * 0"),
        ("0 0 * * 7", None, "0 0 0 * * 0"),
        ("0 0 * * 5-7", None, "0 0 0 * * 5-6,0"),
        ("0 0 * * 0-7,3", None, "0 0 0 * * 0-6,3"),
        ("0 0 */7 * */7", None, "0 0 0 */7 * */7"),
        ("15m", None, "15m"),
    ],
)
def test_a_schedule_becomes_options_that_the_timer_accepts(schedule: str, zone: str | None, expected: str) -> None:
    options = timer_options(schedule, zone)

    assert options["schedule"] == expected
    TimerOptions(name=options["name"], schedule_type=options["schedule_type"], schedule=options["schedule"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "zone"), [("daily", None), ("", None), ("0 3 * *", None), ("1h", "UTC"), ("@daily", "Mars")]
)
def test_a_bad_schedule_is_refused(schedule: str, zone: str | None) -> None:
    with pytest.raises(BadConfiguration, match=r"^(schedule|zone) is "):
        timer_options(schedule, zone)
