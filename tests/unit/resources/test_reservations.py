"""Reserved instances: wanted number by time, failed starts, and removal of orphans."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from engine.errors import InvalidField, NotStored, TooManyReserved
from engine.executors.idle import Reserve
from engine.model import Function
from engine.model.urn import parse_urn
from engine.resources.reservations import CronConfig, MetricConfig, Reservation, Tactics, check_tactics
from tests.doubles.nodes import FixedNodes
from tests.support.executing import function
from tests.support.http_app import PROJECT, REGION, Api, serve, urn_of
from tests.support.waiting import until


class Pool:
    """Records requests for instances and starts none."""

    def __init__(self, *, works: bool) -> None:
        self.reserve = Reserve(())
        self.nodes: FixedNodes | None = None
        self.asked: list[str] = []
        self.works, self.told = works, anyio.Event()

    async def warm(self, function: Function) -> bool:
        self.asked.append(function.name)
        self.told.set()
        return self.works


class Endless(Pool):
    async def warm(self, function: Function) -> bool:
        await super().warm(function)
        await anyio.sleep_forever()
        return True


@asynccontextmanager
async def reserving(folder: Path, pool: Pool) -> AsyncIterator[Api]:
    async with serve(folder) as api, anyio.create_task_group() as tasks:
        api.resources.reservations._instances = pool  # type: ignore[assignment]
        await api.create()
        await tasks.start(api.resources.reservations.run)
        yield api
        tasks.cancel_scope.cancel()


async def put(api: Api, count: int, name: str = "hello", *crons: CronConfig) -> None:
    urn = parse_urn(name, region=REGION, project=PROJECT)
    tactics = Tactics(cron_configs=list(crons))
    await api.resources.reservations.put(urn, Reservation(count=count, tactics=tactics))


async def test_instances_that_do_not_start_are_requested_once_until_a_change(tmp_path: Path) -> None:
    pool = Pool(works=False)
    async with reserving(tmp_path, pool) as api:
        await put(api, 3)
        await pool.told.wait()
        await anyio.wait_all_tasks_blocked()
        before = list(pool.asked)

        pool.told = anyio.Event()
        await put(api, 2)
        await pool.told.wait()
        await anyio.wait_all_tasks_blocked()

    assert before == ["hello"]
    assert pool.asked == ["hello", "hello"]


async def test_a_slow_start_delays_no_other_function_and_a_bug_ends_no_service(tmp_path: Path) -> None:
    class Slow(Pool):
        async def warm(self, function: Function) -> bool:
            await super().warm(function)
            if function.name == "hello":
                await anyio.sleep_forever()
            if len(self.asked) == 2:
                raise RuntimeError("a bug")
            return True

    pool = Slow(works=True)
    async with reserving(tmp_path, pool) as api:
        await api.create("other")
        urns = [parse_urn(name, region=REGION, project=PROJECT) for name in ("hello", "other")]
        functions = [api.catalog.find(urn) for urn in urns]
        pool.reserve.want([(function, 2) for function in functions])
        with capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(api.resources.reservations._start_missing)
                await until(lambda: logs)
                tasks.cancel_scope.cancel()

    assert pool.asked == ["hello", "other"]
    assert logs[0]["event"] == "reserved instance did not start"


async def test_the_log_tells_that_a_reserved_instance_waits_for_capacity(tmp_path: Path) -> None:
    pool = Pool(works=False)
    pool.nodes = FixedNodes()
    async with serve(tmp_path) as api:
        api.resources.reservations._instances = pool  # type: ignore[assignment]
        train = function("handler", project="shop", name="train")
        pool.reserve.want([(train, 1), (function("handler", function_id=2), 1)])
        with capture_logs() as logs:
            await api.resources.reservations._start_missing()

    assert [entry.get("reason") for entry in logs] == ["it waits for capacity of nodes", None]


NOON = "0 0 12 * * ?"


@pytest.mark.parametrize(
    ("first", "name", "count", "crons", "problem"),
    [
        ((80,), "other", 11, (), r"reserve 90 \(limits.reserved_instances\), and has 80 elsewhere"),
        ((1, "hello", CronConfig(cron=NOON, count=80)), "other", 0, (CronConfig(cron=NOON, count=11),), "has 80 else"),
        ((0,), "small", 3, (), "may have 2 instances"),
    ],
    ids=["ninety in a project", "ninety in a project with the most that crons reserve", "a function's own limit"],
)
async def test_more_instances_than_allowed_cannot_be_reserved(
    tmp_path: Path, first: Any, name: str, count: int, crons: tuple[CronConfig, ...], problem: str
) -> None:
    async with reserving(tmp_path, Pool(works=True)) as api:
        await api.create("other")
        await api.create("small", strategy_config={"concurrency": 2})
        await put(api, *first)
        with pytest.raises(TooManyReserved, match=problem):
            await put(api, count, name, *crons)


async def test_a_function_replaces_its_own_reservation(tmp_path: Path) -> None:
    async with reserving(tmp_path, Pool(works=True)) as api:
        await put(api, 80)
        await put(api, 90)


async def test_a_cron_changes_how_many_are_wanted_when_it_comes(tmp_path: Path) -> None:
    pool = Pool(works=True)
    async with reserving(tmp_path, pool) as api:
        await put(api, 0, "hello", CronConfig(cron="* * * * * *", count=2))  # due within a second
        await pool.told.wait()
        await anyio.wait_all_tasks_blocked()

        assert api.resources.reservations.count(1) == 2

    assert pool.asked[:2] == ["hello"] * 2


async def test_a_reservation_is_not_for_another_version_of_its_name(tmp_path: Path) -> None:
    pool = Endless(works=True)
    async with reserving(tmp_path, pool) as api:
        version = urn_of(version=":v1")
        await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
        await put(api, 2, version)
        await pool.told.wait()  # the pool is busy, so orphans are not removed meanwhile

        await api.send("DELETE", f"/{version}")
        await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})

        assert api.resources.reservations.find(PROJECT) == []
        await put(api, 1, version)
        assert [reserved.count for reserved in api.resources.reservations.find(PROJECT)] == [1]


async def test_a_reservation_that_cannot_be_deleted_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(works=True)
    async with reserving(tmp_path, pool) as api:
        reservations, version = api.resources.reservations, urn_of(version=":v1")
        await api.send("POST", f"/{urn_of()}/versions", {"version": "v1"})
        await put(api, 1, version)
        await pool.told.wait()
        pool.told = anyio.Event()
        monkeypatch.setattr(reservations._repository._store, "delete", full)

        await api.send("DELETE", f"/{version}")
        await put(api, 2)
        await pool.told.wait()

        assert [reserved.count for reserved in reservations.find(PROJECT)] == [2]


async def full(*resource: str) -> None:
    raise NotStored("the disk is full")


async def test_a_reservation_that_never_comes_to_anything_is_none(tmp_path: Path) -> None:
    async with reserving(tmp_path, Pool(works=True)) as api:
        await put(api, 0, "hello", CronConfig(cron="0 0 12 * * ?", count=1))
        kept = api.resources.reservations.find(PROJECT)

        await put(api, 0, "hello", CronConfig(cron="0 0 12 * * ?", count=0))

        assert (len(kept), kept[0].count) == (1, 0)
        assert api.resources.reservations.find(PROJECT) == []


# --- schedule ------------------------------------------------------------------------------------------------

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
