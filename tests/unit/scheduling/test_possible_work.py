"""Work that the scheduler could do: none while it works, whatever runs or is paused, and some when it is stuck."""

from __future__ import annotations

import asyncio
from random import Random

import anyio
import pytest

from engine.model import Invocation, Mode
from engine.model.clock import SystemClock
from engine.protocols import Page
from engine.scheduling.function_queue import Entry
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import ManualClock
from tests.support.builders import entry, waiting
from tests.unit.scheduling.test_scheduler import Disk, SlowDisk, found, scheduling

SLOTS = 3


class Slots:
    """Slots of a dispatcher, whose runs end when the test says so."""

    def __init__(self, scheduler: Scheduler, disk: Disk) -> None:
        self._scheduler, self._disk = scheduler, disk
        self.running: list[tuple[Entry, asyncio.Event]] = []

    async def slot(self) -> None:
        taken = await self._scheduler.take()
        while True:
            self._disk.rows = [row for row in self._disk.rows if row.key != taken.invocation.key]
            end = asyncio.Event()
            self.running.append((taken, end))
            await end.wait()
            taken = await self._scheduler.exchange(taken, 0.01)

    def end(self, random: Random) -> None:
        if self.running:
            self.running.pop(random.randrange(len(self.running)))[1].set()


def change(random: Random, scheduler: Scheduler, slots: Slots, disk: Disk) -> None:
    """Make one change as the engine makes them."""
    match random.randrange(14):
        case 0 | 1 | 2 | 3:
            row = waiting(random.randint(1, 4), rank=random.random())
            disk.rows = sorted([*disk.rows, row], key=lambda invocation: invocation.rank_key)
            scheduler.push(row)
        case 4:
            scheduler.push(waiting(random.randint(1, 4), mode=Mode.SYNC))
        case 5 | 6 | 7 | 8:
            slots.end(random)
        case 9:
            change_gate = scheduler.resume if "busy host" in scheduler.held else scheduler.hold
            change_gate("busy host")
        case 10:
            limit, memory = random.choice([-1, 0, 1, 2]), random.choice([100, 400, 900])
            scheduler.configure(random.randint(1, 4), weight=1.0, limit=limit, memory=memory)
        case 11:
            function_id = random.randint(1, 4)
            scheduler.set_pause(function_id, "" if scheduler.pause_reason(function_id) is None else None)
        case 12:
            if disk.rows:
                row = random.choice(disk.rows)
                scheduler.withhold(row.function_id, row.key)
                scheduler.reinstate(row.key, ended=False)
        case 13:
            scheduler.set_places(random.randint(1, 4), ("latest", 0), random.choice([-1, -1, 0, 1]))


@pytest.mark.parametrize("seed", range(12))
async def test_a_scheduler_that_works_leaves_nothing_possible_undone(seed: int) -> None:
    random, disk = Random(seed), Disk()
    async with scheduling(disk, slots=SLOTS) as scheduler, asyncio.timeout(60), anyio.create_task_group() as tasks:
        slots = Slots(scheduler, disk)
        for _ in range(SLOTS):
            tasks.start_soon(slots.slot)
        most = 0
        for _ in range(150):
            change(random, scheduler, slots, disk)
            for _ in range(8):
                await asyncio.sleep(0)
            most = max(most, len(slots.running))

            assert scheduler.possible_work() is None
        tasks.cancel_scope.cancel()

    assert most == SLOTS


async def test_a_full_function_a_parked_one_and_held_work_are_not_possible_work() -> None:
    async with scheduling(Disk()) as scheduler:
        scheduler.configure(1, weight=1.0, limit=0, memory=1)
        scheduler.push(waiting(1))
        parked = asyncio.ensure_future(scheduler.take())
        await asyncio.sleep(0)
        scheduler.push(waiting(2))
        scheduler.park(await parked)
        assert scheduler.possible_work() is None

        scheduler.hold("busy host")
        scheduler.push(waiting(3))
        assert scheduler.possible_work() is None


async def test_all_slots_busy_is_not_possible_work() -> None:
    async with scheduling(Disk(), slots=2) as scheduler:
        for _ in range(3):
            scheduler.push(waiting())
        await scheduler.take()
        await scheduler.take()

        assert scheduler.possible_work() is None


async def test_an_entry_that_no_slot_was_told_of_is_possible_work_until_it_starts() -> None:
    queue = RunQueue(slots=2, sync_slots=0, memory=1000)
    scheduler = Scheduler(queue, Disk(), SystemClock())
    queue.push(entry(key=501))  # a change that forgets to hand out

    seen = [scheduler.possible_work() for _ in range(2)]
    started = await scheduler.take()

    assert seen[0] == seen[1]
    assert seen[0] is not None
    assert "does not start" in seen[0][0]
    assert started.invocation.key == 501
    assert scheduler.possible_work() is None


async def test_a_look_changes_nothing_about_the_order_of_functions() -> None:
    starts = []
    for looks in (0, 1):
        queue = RunQueue(slots=2, sync_slots=0, memory=1000)
        scheduler = Scheduler(queue, Disk(), SystemClock())
        for key, function_id in ((501, 1), (502, 2)):
            queue.push(entry(function_id, key=key))
        for _ in range(looks):
            scheduler.possible_work()
        starts.append([(await scheduler.take()).invocation.key for _ in range(2)])

    assert starts[0] == starts[1]


async def test_each_start_is_progress() -> None:
    queue = RunQueue(slots=2, sync_slots=0, memory=1000)
    scheduler = Scheduler(queue, Disk(), SystemClock())
    for key in (501, 502):
        queue.push(entry(key=key))

    before = scheduler.possible_work()
    await scheduler.take()
    after = scheduler.possible_work()

    assert None not in (before, after)
    assert before != after


class PagedDisk(Disk):
    """Disk that returns a page for each permit of the test."""

    def __init__(self, *rows: Invocation) -> None:
        super().__init__(*rows)
        self.asked_for: asyncio.Queue[int] = asyncio.Queue()
        self.permits = asyncio.Semaphore(0)

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        self.asked_for.put_nowait(function_id)
        await self.permits.acquire()
        return await super().ready(function_id, after, rows, size)


async def test_each_page_is_progress() -> None:
    disk = PagedDisk(waiting(1), waiting(2))
    async with scheduling(disk) as scheduler, asyncio.timeout(60):
        scheduler.recover(found(1, 2))
        await disk.asked_for.get()
        before = scheduler.possible_work()
        disk.permits.release()
        await disk.asked_for.get()
        after = scheduler.possible_work()

    assert None not in (before, after)
    assert before != after


async def stopped(clock: ManualClock, disk: Disk) -> Scheduler:
    """Return a scheduler whose task has ended."""
    async with scheduling(disk, clock=clock) as scheduler:
        pass
    return scheduler


async def test_a_due_promotion_without_the_task_is_possible_work() -> None:
    clock = ManualClock()
    late = waiting(key=601, due_at=clock.now() + 60)
    scheduler = await stopped(clock, Disk(delayed=(late,)))
    scheduler.push(waiting(key=601, due_at=late.due_at, delayed=True))

    before = scheduler.possible_work()
    clock.advance(61)
    seen = [scheduler.possible_work() for _ in range(2)]

    assert before is None
    assert seen[0] == seen[1]
    assert seen[0] is not None
    assert "are not read" in seen[0][0]


async def test_pages_that_nobody_reads_are_possible_work() -> None:
    rows: list[Invocation] = [waiting(rank=float(n)) for n in range(3)]
    scheduler = await stopped(ManualClock(), Disk(*rows))

    scheduler.recover(found(1))

    seen = [scheduler.possible_work() for _ in range(2)]
    assert seen[0] == seen[1]
    assert seen[0] is not None


async def test_a_page_that_does_not_come_is_possible_work_until_it_has_come() -> None:
    disk = SlowDisk()
    disk.rows = [waiting(key=501)]
    async with scheduling(disk) as scheduler, asyncio.timeout(60):
        scheduler.recover(found(1))
        await disk.asked_for.wait()
        during = scheduler.possible_work()
        disk.gives.set()
        await scheduler.take()

        assert during is not None
        assert scheduler.possible_work() is None
