"""Scheduler: windows of the backlog, promotion, slots, and pauses of functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from engine.errors import NotStored
from engine.model import Invocation, Mode
from engine.model.clock import Clock, SystemClock
from engine.protocols import Page, Recovery, Window
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import ManualClock
from tests.support.builders import call, waiting
from tests.support.storages import CANCELLED, KINDS, stored


class Disk:
    """Window over rows that the test provides."""

    def __init__(self, *ready: Invocation, delayed: tuple[Invocation, ...] = (), fails: int = 0) -> None:
        self.rows, self.delayed, self.fails = list(ready), list(delayed), fails
        self.asked = 0

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        self.asked += 1
        if self.asked <= self.fails:
            raise NotStored("disk full")
        behind = [i for i in self.rows if i.function_id == function_id and i.rank_key > after]
        return Page(invocations=tuple(behind[:rows]), complete=len(behind) < rows)

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        due = tuple(i for i in self.delayed if i.due_at <= now)
        self.delayed = [i for i in self.delayed if i.due_at > now]
        return due, min((i.due_at for i in self.delayed), default=None)


class SlowDisk(Disk):
    """Disk whose pages are read at once but returned when the test allows."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for, self.gives = asyncio.Event(), asyncio.Event()

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        page = await super().ready(function_id, after, rows, size)
        self.asked_for.set()
        await self.gives.wait()
        return page


@asynccontextmanager
async def scheduling(disk: Window, slots: int = 2, clock: Clock | None = None) -> AsyncIterator[Scheduler]:
    queue = RunQueue(slots=slots, sync_slots=0, memory=1000, window_rows=4)
    scheduler = Scheduler(queue, disk, clock or SystemClock())
    async with anyio.create_task_group() as tasks:
        await tasks.start(scheduler.run)
        yield scheduler
        tasks.cancel_scope.cancel()


def found(*functions: int, next_due: float | None = None) -> Recovery:
    return Recovery(backlog={}, waiting=frozenset(functions), poisoned=(), next_due=next_due, revived=0)


async def test_a_waiting_caller_gets_what_is_pushed() -> None:
    async with scheduling(Disk()) as scheduler, asyncio.timeout(60):
        taker = asyncio.ensure_future(scheduler.take())
        await asyncio.sleep(0)

        scheduler.push(waiting(key=501))

        assert (await taker).invocation.key == 501


async def test_a_backlog_larger_than_the_window_comes_page_by_page_in_order() -> None:
    rows = [waiting(key=1000 + n, rank=float(n)) for n in range(30)]
    async with scheduling(Disk(*rows), slots=1) as scheduler, asyncio.timeout(60):
        scheduler.recover(found(1))
        keys = []
        for _ in rows:
            entry = await scheduler.take()
            keys.append(entry.invocation.key)
            scheduler.release(entry, 0.001)

    assert keys == [row.key for row in rows]


async def test_a_delayed_invocation_is_promoted_when_it_is_due() -> None:
    now = SystemClock().now()
    late = waiting(key=601, due_at=now + 0.05)
    async with scheduling(Disk(delayed=(late,))) as scheduler, asyncio.timeout(60):
        scheduler.push(waiting(key=601, due_at=late.due_at, delayed=True))

        entry = await scheduler.take()

        assert entry.invocation.key == 601
        assert SystemClock().now() >= late.due_at


@pytest.mark.parametrize("steps", [(7200,), (-3600, 7300)], ids=["ahead", "back and ahead"])
async def test_a_delayed_invocation_is_promoted_soon_after_the_clock_was_set(steps: tuple[float, ...]) -> None:
    clock = ManualClock(check=0.02)
    late = waiting(key=601, due_at=clock.now() + 3600)
    async with scheduling(Disk(delayed=(late,)), clock=clock) as scheduler, asyncio.timeout(60):
        scheduler.push(waiting(key=601, due_at=late.due_at, delayed=True))
        for step in steps:
            await asyncio.sleep(0.1)
            clock.advance(step)

        assert (await scheduler.take()).invocation.key == 601


async def test_without_delayed_work_no_timer_is_set() -> None:
    clock = ManualClock(check=0.02)
    async with scheduling(Disk(), clock=clock) as scheduler, asyncio.timeout(60):
        scheduler.push(waiting(key=501))
        await scheduler.take()

        assert clock.alarms.count == 0


async def test_a_withheld_invocation_does_not_come_back_from_disk() -> None:
    rows = [waiting(key=700 + n, rank=float(n)) for n in range(3)]
    async with scheduling(Disk(*rows), slots=3) as scheduler, asyncio.timeout(60):
        scheduler.withhold(1, 700)
        scheduler.recover(found(1))

        assert [(await scheduler.take()).invocation.key for _ in range(2)] == [701, 702]


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_an_invocation_that_ends_on_disk_as_it_is_read_is_not_handed_out(
    tmp_path: Path, delayed: bool, turns: int
) -> None:
    async with KINDS["sqlite"](tmp_path)() as storage, asyncio.timeout(60):
        one, other = await stored(storage, delayed=delayed), await stored(storage, delayed=delayed)
        async with scheduling(storage.window) as scheduler:
            scheduler.recover(found(next_due=0.0) if delayed else found(1))
            for _ in range(turns):  # in one of these turns, the end and the page arrive in one commit
                await asyncio.sleep(0)
            scheduler.withhold(1, one.key)
            await storage.journal.end_all(
                [one.key], CANCELLED, then=lambda _, on_disk: scheduler.reinstate(one.key, ended=on_disk)
            )

            assert (await scheduler.take()).invocation.key == other.key


async def test_a_second_caller_that_ends_an_invocation_does_not_lose_the_withheld_entry_of_the_first() -> None:
    async with scheduling(Disk()) as scheduler, asyncio.timeout(60):
        scheduler.push(waiting(key=750))
        scheduler.withhold(1, 750)
        scheduler.withhold(1, 750)
        scheduler.reinstate(750, ended=False)
        scheduler.reinstate(750, ended=False)

        assert (await scheduler.take()).invocation.key == 750


async def test_an_invocation_that_came_while_a_page_was_read_is_not_lost_if_its_end_fails() -> None:
    disk = SlowDisk()
    async with scheduling(disk) as scheduler, asyncio.timeout(60):
        scheduler.recover(found(1))
        await disk.asked_for.wait()
        scheduler.push(waiting(key=760))  # no page under way contains it
        scheduler.withhold(1, 760)
        disk.gives.set()
        await asyncio.sleep(0)
        scheduler.reinstate(760, ended=False)

        assert (await scheduler.take()).invocation.key == 760


@pytest.mark.parametrize("mode", Mode)
async def test_an_invocation_behind_one_that_does_not_fit_has_its_turn_once_that_gives_up(mode: Mode) -> None:
    async with scheduling(Disk(), slots=3) as scheduler, asyncio.timeout(60):
        for function_id, memory in ((1, 700), (2, 700), (3, 100)):
            scheduler.configure(function_id, weight=1.0, limit=-1, memory=memory)
        scheduler.push(waiting(1))
        await scheduler.take()
        scheduler.push(waiting(2, key=781, mode=mode))
        taker = asyncio.ensure_future(scheduler.take())
        await asyncio.sleep(0)
        scheduler.push(waiting(3, key=782))
        if mode is Mode.SYNC:
            scheduler.withdraw(2, 781)
        else:
            scheduler.withhold(2, 781)

        assert (await taker).invocation.key == 782


async def test_no_asynchronous_work_starts_while_the_scheduler_is_held() -> None:
    async with scheduling(Disk()) as scheduler, asyncio.timeout(60):
        scheduler.hold("a reason")
        scheduler.push(waiting(key=801))
        taker = asyncio.ensure_future(scheduler.take())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not taker.done()

        scheduler.resume("a reason")

        assert (await taker).invocation.key == 801


async def test_a_taker_that_is_cancelled_in_the_last_moment_loses_nothing() -> None:
    async with scheduling(Disk()) as scheduler, asyncio.timeout(60):
        taker = asyncio.ensure_future(scheduler.take())
        await asyncio.sleep(0)
        scheduler.push(waiting(key=901))
        taker.cancel()
        await asyncio.wait([taker])

        assert (await scheduler.take()).invocation.key == 901


async def test_a_page_that_the_disk_did_not_give_is_asked_for_again() -> None:
    async with scheduling(Disk(waiting(key=951), fails=1)) as scheduler, asyncio.timeout(60):
        scheduler.recover(found(1))

        assert (await scheduler.take()).invocation.key == 951


async def test_nothing_of_a_closed_function_is_handed_out_wherever_it_comes_from() -> None:
    rows = [waiting(key=1100 + n, rank=float(n)) for n in range(9)]
    disk = Disk(*rows, delayed=(waiting(key=1200),))
    async with scheduling(disk, slots=20) as scheduler, asyncio.timeout(60):
        told: asyncio.Queue[int] = asyncio.Queue()
        scheduler.kept_out.connect(lambda invocation: told.put_nowait(invocation.function_id))
        scheduler.recover(found(1, next_due=0.0))
        scheduler.push(waiting(2, key=1300))
        scheduler.close(1)
        scheduler.push(waiting(key=1400))
        scheduler.push(waiting(key=1500, due_at=1e12, delayed=True))

        assert (await scheduler.take()).invocation.key == 1300
        assert [await told.get() for _ in range(3)] == [1, 1, 1]  # the third is the due one
        assert scheduler.statistics().waiting_in_memory == 0


async def test_a_synchronous_call_of_a_closed_function_has_its_turn() -> None:
    async with scheduling(Disk()) as scheduler, asyncio.timeout(60):
        scheduler.close(1)
        scheduler.push(waiting(key=1600, mode=Mode.SYNC))

        assert (await scheduler.take()).invocation.key == 1600


async def test_an_invocation_withheld_when_its_function_closed_stays_out() -> None:
    async with scheduling(Disk()) as scheduler:
        told: list[int] = []
        scheduler.kept_out.connect(lambda invocation: told.append(invocation.function_id))
        scheduler.push(waiting(key=1700))
        scheduler.withhold(1, 1700)
        scheduler.close(1)

        scheduler.reinstate(1700, ended=False)

        assert (told, scheduler.statistics().waiting_in_memory) == ([1], 0)


# --- pauses --------------------------------------------------------------------------------------------------


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
        disk.rows = sorted([*disk.rows, row], key=lambda invocation: invocation.rank_key)
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
