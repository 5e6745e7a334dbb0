"""The free-space watermark."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import DiskLow
from engine.scheduling.backlog import LOOK_EVERY, ROW, DiskGuard
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
