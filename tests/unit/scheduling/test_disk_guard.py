"""What holds up intake and starts: the free space of the disk, and busy processors."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from engine.errors import DiskLow
from engine.scheduling import pressure
from engine.scheduling.backlog import LOOK_EVERY, ROW, DiskGuard
from engine.scheduling.pressure import REASON, watch_pressure
from engine.scheduling.scheduler import Scheduler
from engine.triggers.plugin_contexts import GuardedStore
from tests.doubles import ManualClock, MemoryStore

ROOM = 1 << 30


class Disk:
    """File system with settable free space. Counts queries."""

    def __init__(self) -> None:
        self.free, self.asked = 2 * ROOM, 0

    def statvfs(self, path: Path) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(f_bavail=self.free, f_frsize=1)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


def test_a_real_disk_with_less_than_is_needed_takes_nothing_and_is_reported(tmp_path: Path) -> None:
    told: list[bool] = []
    guard = DiskGuard(tmp_path, 1 << 60, ManualClock(), on_low=lambda: told.append(True))

    with pytest.raises(DiskLow):
        guard.check()
    assert told == [True]


def test_the_disk_is_not_asked_for_each_request(disk: Disk, tmp_path: Path) -> None:
    clock = ManualClock()
    guard = DiskGuard(tmp_path, ROOM, clock)
    for _ in range(100):
        guard.check(100)

    assert disk.asked == 1
    clock.advance(LOOK_EVERY)
    guard.check(100)
    assert disk.asked == 2


def test_a_burst_that_could_pass_the_mark_is_not_let_through_unseen(disk: Disk, tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path, ROOM, ManualClock())
    for _ in range(5):
        guard.check(ROOM // 4 - ROW)
    disk.free = ROOM - 1

    with pytest.raises(DiskLow):
        guard.check(ROOM // 4 - ROW)
    assert disk.asked == 2


async def test_plugins_may_put_no_more_than_there_is_room_for_but_always_make_room(disk: Disk, tmp_path: Path) -> None:
    clock = ManualClock()
    store = GuardedStore(MemoryStore(), DiskGuard(tmp_path, ROOM, clock))
    await store.write("records", {"a": b"1", "b": b"2", "c": b"3"})
    disk.free = ROOM - 1
    clock.advance(LOOK_EVERY)

    with pytest.raises(DiskLow):
        await store.write("records", {"d": b"4"})
    await store.write("records", delete=["a"])
    assert await store.purge("records", "c") == 1
    assert await store.scan("records") == [("c", b"3")]


class Gate:
    def __init__(self) -> None:
        self.held, self.open = asyncio.Event(), asyncio.Event()
        self.reasons: list[str] = []

    def hold(self, reason: str) -> None:
        self.reasons.append(reason)
        self.held.set()

    def resume(self, reason: str) -> None:
        self.open.set()


@asynccontextmanager
async def watching() -> AsyncIterator[Gate]:
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        await tasks.start(watch_pressure, cast("Scheduler", gate))
        yield gate
        tasks.cancel_scope.cancel()


@contextmanager
def burning(processes: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@pytest.mark.skipif(not Path("/proc/pressure/cpu").exists(), reason="the kernel has no pressure-stall information")
async def test_the_gate_is_held_while_the_processors_are_busy() -> None:
    async with asyncio.timeout(90), watching() as gate:
        with burning(3 * (os.cpu_count() or 1)):
            await gate.held.wait()

        assert set(gate.reasons) == {REASON}


async def test_the_gate_opens_again_when_there_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "QUIET", 0.01)
    gate = Gate()
    kernel, teller = socket.socketpair()
    with kernel, teller, select.epoll() as news:
        news.register(kernel, select.EPOLLIN)
        async with asyncio.timeout(60), anyio.create_task_group() as tasks:
            await tasks.start(pressure.follow, news, cast("Scheduler", gate))
            for _ in range(2):
                gate.held, gate.open = asyncio.Event(), asyncio.Event()
                teller.send(b"busy")
                await gate.held.wait()
                assert not gate.open.is_set()
                kernel.recv(4)
                await gate.open.wait()
            tasks.cancel_scope.cancel()

    assert gate.reasons == [REASON, REASON]
