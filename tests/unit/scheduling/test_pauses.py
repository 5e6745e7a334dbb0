"""Pauses of functions: nothing of them starts, all of it waits on disk, and nothing is lost or started twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.model import Invocation
from engine.scheduling.scheduler import Scheduler
from tests.support.builders import call, waiting
from tests.unit.scheduling.test_scheduler import Disk, SlowDisk, found, scheduling


async def start_all(scheduler: Scheduler, disk: Disk, count: int) -> list[int]:
    """Start ``count`` invocations one after another, and return their keys."""
    keys = []
    for _ in range(count):
        entry = await scheduler.take()
        keys.append(entry.invocation.key)
        disk.rows = [row for row in disk.rows if row.key != entry.invocation.key]
        scheduler.release(entry, 0.001)
    return keys


def push_all(scheduler: Scheduler, disk: Disk, rows: Sequence[Invocation]) -> None:
    for row in rows:
        disk.rows = sorted([*disk.rows, row], key=lambda one: one.rank_key)
        scheduler.push(row)


async def test_of_a_paused_function_nothing_starts_and_others_go_on() -> None:
    disk = Disk()
    async with scheduling(disk) as scheduler, asyncio.timeout(20):
        push_all(scheduler, disk, [waiting(key=1)])
        scheduler.set_pause(1, "migration")
        push_all(scheduler, disk, [waiting(key=2), waiting(2, key=3)])

        assert await start_all(scheduler, disk, 1) == [3]
        assert scheduler.pause_reason(1) == "migration"
        assert scheduler.pause_reason(2) is None


async def test_after_a_pause_all_starts_in_order_also_what_came_meanwhile() -> None:
    disk = Disk()
    async with scheduling(disk, slots=1) as scheduler, asyncio.timeout(20):
        push_all(scheduler, disk, [waiting(key=key, rank=float(key)) for key in range(1, 9)])
        scheduler.set_pause(1, "")
        push_all(scheduler, disk, [waiting(key=20, rank=20.0), waiting(key=10, rank=-1.0)])
        taker = asyncio.ensure_future(start_all(scheduler, disk, 10))
        await asyncio.sleep(0)
        assert not taker.done()

        scheduler.set_pause(1, None)

        assert await taker == [10, *range(1, 9), 20]


async def test_a_paused_function_keeps_nothing_in_memory() -> None:
    disk = Disk()
    async with scheduling(disk) as scheduler:
        push_all(scheduler, disk, [waiting(key=key, payload=b"x" * 100) for key in range(1, 4)])
        scheduler.set_pause(1, "")
        push_all(scheduler, disk, [waiting(key=key, payload=b"x" * 100) for key in range(4, 9)])

        statistics = scheduler.statistics()
        assert (statistics.waiting_in_memory, statistics.window_bytes) == (0, 0)


async def test_a_function_that_is_paused_at_the_start_is_not_read_from_disk() -> None:
    disk = Disk(waiting(key=1), waiting(2, key=2))
    async with scheduling(disk) as scheduler, asyncio.timeout(20):
        scheduler.set_pause(1, "")
        scheduler.recover(found(1, 2))

        assert await start_all(scheduler, disk, 1) == [2]
        assert disk.asked == 1

        scheduler.set_pause(1, None)
        assert await start_all(scheduler, disk, 1) == [1]


async def test_a_page_that_was_read_before_a_pause_loses_nothing_after_it() -> None:
    disk = SlowDisk()
    disk.rows = [waiting(key=key, rank=float(key)) for key in range(1, 12)]
    async with scheduling(disk, slots=1) as scheduler, asyncio.timeout(20):
        scheduler.recover(found(1))
        disk.gives.set()
        assert await start_all(scheduler, disk, 2) == [1, 2]
        disk.gives.clear()
        disk.asked_for.clear()
        third = await scheduler.take()
        disk.rows = disk.rows[1:]
        await disk.asked_for.wait()  # the page behind the window is under way, and the window has one more
        scheduler.set_pause(1, "")
        scheduler.set_pause(1, None)
        await asyncio.sleep(0)
        disk.gives.set()
        scheduler.release(third, 0.001)

        assert await start_all(scheduler, disk, 8) == list(range(4, 12))


async def test_an_invocation_that_a_slot_was_given_before_a_pause_does_not_start_twice() -> None:
    disk = SlowDisk()
    disk.rows = [waiting(2, key=7)]
    async with scheduling(disk, slots=3) as scheduler, asyncio.timeout(20):
        scheduler.recover(found(2))
        await disk.asked_for.wait()
        first = asyncio.ensure_future(start_all(scheduler, disk, 1))
        await asyncio.sleep(0)
        disk.gives.set()  # the task of the scheduler goes on before the slot
        push_all(scheduler, disk, [waiting(key=1)])
        scheduler.set_pause(1, "")
        scheduler.set_pause(1, None)
        push_all(scheduler, disk, [waiting(key=2, rank=5.0)])

        assert await first == [1]
        assert sorted(await start_all(scheduler, disk, 2)) == [2, 7]


async def test_a_second_pause_right_after_the_first_holds() -> None:
    disk = Disk()
    async with scheduling(disk) as scheduler, asyncio.timeout(20):
        push_all(scheduler, disk, [waiting(key=1)])
        scheduler.set_pause(1, "")
        scheduler.set_pause(1, None)
        scheduler.set_pause(1, "again")
        push_all(scheduler, disk, [waiting(2, key=2)])

        assert await start_all(scheduler, disk, 1) == [2]
        await asyncio.sleep(0)
        assert disk.asked == 0


async def test_waiting_calls_of_a_function_are_withdrawn_together() -> None:
    async with scheduling(Disk(), slots=1) as scheduler, asyncio.timeout(20):
        scheduler.push(waiting(3, key=9))
        running = await scheduler.take()
        for entry in (call(1, key=1), call(1, key=2), call(2, key=3)):
            scheduler.push(entry.invocation)

        assert sorted(entry.invocation.key for entry in scheduler.withdraw_calls(1)) == [1, 2]
        scheduler.release(running, 0.001)
        assert (await scheduler.take()).invocation.key == 3
