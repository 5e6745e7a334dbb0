"""Reserved instances: wanted number, failed starts, and removal of orphans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import NotStored, TooManyReserved
from engine.executors.idle import Reserve
from engine.model import Function
from engine.model.urn import parse_urn
from engine.resources.reservations import CronConfig, Reservation, Tactics
from tests.support.http_app import PROJECT, REGION, Api, serve, urn_of


class Pool:
    """Records requests for instances and starts none."""

    def __init__(self, *, works: bool) -> None:
        self.reserve = Reserve(())
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
        api.resources.reservations._instances = pool
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


async def test_as_many_as_are_missing_are_started(tmp_path: Path) -> None:
    pool = Pool(works=True)
    async with reserving(tmp_path, pool) as api:
        await put(api, 3)
        await pool.told.wait()
        await anyio.wait_all_tasks_blocked()

    assert pool.asked == ["hello"] * 3


NOON = "0 0 12 * * ?"


@pytest.mark.parametrize(
    ("first", "name", "count", "crons", "problem"),
    [
        ((80,), "other", 11, (), "has 80 elsewhere"),
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
        assert [one.count for one in api.resources.reservations.find(PROJECT)] == [1]


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

        assert [one.count for one in reservations.find(PROJECT)] == [2]


async def full(*resource: str) -> None:
    raise NotStored("the disk is full")


async def test_a_reservation_that_never_comes_to_anything_is_none(tmp_path: Path) -> None:
    async with reserving(tmp_path, Pool(works=True)) as api:
        await put(api, 0, "hello", CronConfig(cron="0 0 12 * * ?", count=1))
        kept = api.resources.reservations.find(PROJECT)

        await put(api, 0, "hello", CronConfig(cron="0 0 12 * * ?", count=0))

        assert (len(kept), kept[0].count) == (1, 0)
        assert api.resources.reservations.find(PROJECT) == []
