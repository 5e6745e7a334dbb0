"""Number of reserved instances at a given time."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from engine.errors import InvalidField
from engine.resources.reservations import CronConfig, MetricConfig, Reservation, Tactics, check_tactics

DAY = 86_400
MIDNIGHT = int(datetime(2026, 11, 25, tzinfo=UTC).timestamp())


def cron(hour: int, count: int, *, start_time: int = 0, expired_time: int = 0) -> CronConfig:
    text = f"0 0 {hour} * * *"
    return CronConfig(cron=text, count=count, start_time=start_time, expired_time=expired_time)


def reserved(*crons: CronConfig, count: int = 1, put: float = MIDNIGHT) -> Reservation:
    return Reservation(count=count, tactics=Tactics(cron_configs=list(crons))).put_at(put, None)


def at(hour: float) -> float:
    return MIDNIGHT + hour * 3600


def test_without_tactics_the_count_never_changes() -> None:
    assert (reserved().scheduled_at(at(9)).count, reserved().scheduled_at(at(9)).end) == (1, math.inf)


def test_the_cron_that_came_last_decides() -> None:
    reservation = reserved(cron(9, 5), cron(18, 2))

    assert [reservation.scheduled_at(at(hour)).count for hour in (8.9, 9, 17.9, 18, 32, 33)] == [1, 5, 5, 2, 2, 5]
    assert [reservation.scheduled_at(at(hour)).end for hour in (0, 9, 18)] == [at(9), at(18), at(33)]


def test_of_those_that_come_together_the_largest_count_decides() -> None:
    assert reserved(cron(9, 5), cron(9, 7), cron(9, 6)).scheduled_at(at(10)).count == 7


def test_a_cron_counts_from_its_start_to_its_expiry() -> None:
    reservation = reserved(cron(9, 5, start_time=int(at(33)), expired_time=int(at(40))))

    assert [reservation.scheduled_at(at(hour)).count for hour in (10, 32.9, 33, 39.9, 40, 80)] == [1, 1, 5, 5, 1, 1]
    assert [reservation.scheduled_at(at(hour)).end for hour in (0, 33, 40)] == [at(33), at(40), math.inf]


def test_a_cron_without_start_does_not_act_for_times_before_it_was_put() -> None:
    noon = at(12)

    assert reserved(cron(9, 5), put=noon).scheduled_at(noon).count == 1
    assert reserved(cron(9, 5, start_time=1), put=noon).scheduled_at(noon).count == 5


def test_a_schedule_that_is_put_again_stays_in_force() -> None:
    old = reserved(cron(9, 5))

    again = Reservation(count=2, tactics=Tactics(cron_configs=[cron(18, 0), cron(9, 5)])).put_at(at(12), old)

    assert (again.scheduled_at(at(12)).count, again.scheduled_at(at(18)).count) == (5, 0)


def test_the_largest_count_is_the_most_that_may_be_reserved() -> None:
    assert [reserved().largest, reserved(cron(9, 5), cron(18, 0)).largest, reserved(cron(9, 0)).largest] == [1, 5, 1]


def test_a_zone_of_its_own_is_heeded() -> None:
    config = CronConfig(cron="CRON_TZ=Asia/Shanghai 0 0 9 * * *", count=5)

    assert reserved(config).scheduled_at(at(0)).end == at(1)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (CronConfig(cron="", count=1), "cron_configs[0].cron"),
        (CronConfig(cron="0 0 25 * * *", count=1), "cron_configs[0].cron"),
        (cron(9, 5, start_time=20, expired_time=20), "cron_configs[0].expired_time"),
    ],
)
def test_a_cron_that_cannot_come_is_refused(config: CronConfig, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_tactics(Tactics(cron_configs=[config]))

    assert caught.value.field == f"tactics_config.{field}"


def test_a_cron_that_this_machine_cannot_read_never_comes() -> None:
    lost = reserved(CronConfig(cron="CRON_TZ=Nowhere/City 0 0 9 * * *", count=5))

    assert (lost.scheduled_at(at(10)).count, lost.scheduled_at(at(10)).end) == (1, math.inf)


def test_a_count_is_good_from_when_it_was_looked_up_until_the_next_change() -> None:
    held = reserved(cron(9, 5)).scheduled_at(at(10))

    assert [held.covers(at(hour)) for hour in (9.9, 10, 32.9, 33)] == [False, True, True, False]


def test_counts_by_load_have_no_effect() -> None:
    tactics = Tactics(metric_configs=[MetricConfig(name="busy", threshold=50, min=9)])
    check_tactics(tactics)

    assert Reservation(count=1, tactics=tactics).largest == 1
