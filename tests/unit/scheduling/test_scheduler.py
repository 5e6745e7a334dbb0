from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from tests.contracts.storage import CANCELLED, KINDS, stored
from tests.doubles import ManualClock
from tests.support.builders import waiting


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
