"""Times at which memory of instances is measured. Measurement and instances are simulated."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from engine.executors.local import memory_watch
from engine.executors.local.memory_watch import MemoryWatch
from engine.isolation.limits import Enclosure, Isolation

MAX_WAIT = 60.0  #: seconds until a test fails
LITTLE, MUCH = 1 << 20, 9 << 20


class Played:
    """Instance with a limit of 8 MB, its enclosure, and a mechanism that reports ``sizes`` one after the other."""

    def __init__(self, *sizes: int, alarms: bool = True) -> None:
        self.memory, self.shared, self.end = 8, True, None
        self.out_of_memory, self.calls, self.closed = False, {1: None}, asyncio.Event()
        self.eventfd = os.eventfd(0) if alarms else None
        self.killed, self.suspected = asyncio.Event(), asyncio.Event()
        self._sizes = iter(sizes)

    @property
    def watched(self) -> bool:
        return self.suspected.is_set()

    @watched.setter
    def watched(self, value: bool) -> None:
        self.suspected.set()

    def alarm(self) -> int | None:
        return self.eventfd

    def measure(self, enclosures: Sequence[Any]) -> Sequence[int]:
        return [next(enclosure._sizes, LITTLE) for enclosure in enclosures]

    def kill(self, end: Any) -> None:
        self.end = end
        self.killed.set()

    def ring(self) -> None:
        assert self.eventfd is not None
        os.eventfd_write(self.eventfd, 1)


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the regular interval too long to matter."""
    monkeypatch.setattr(memory_watch, "_INTERVAL", 3600.0)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def watch(threads: ThreadPoolExecutor) -> Iterator[Callable[..., MemoryWatch]]:
    """Return a function that starts one watch for the given instances."""
    watches: list[tuple[MemoryWatch, Played]] = []

    def begin(*all_played: Played) -> MemoryWatch:
        made = MemoryWatch(cast(Isolation, all_played[0]), threads)
        for played in all_played:
            made.add(cast(Any, played), cast(Enclosure, played))
            watches.append((made, played))
        return made

    yield begin
    for made, played in watches:
        made.discard(cast(Any, played))
        made.close()


async def happens(event: asyncio.Event) -> None:
    async with asyncio.timeout(MAX_WAIT):
        await event.wait()


async def test_an_instance_that_exceeds_its_limit_after_an_alarm_is_ended_soon(
    watch: Callable[..., MemoryWatch],
) -> None:
    played = Played(LITTLE, LITTLE, LITTLE, MUCH)
    watch(played)

    played.ring()
    await happens(played.killed)

    assert played.out_of_memory


async def test_an_alarm_is_heard_while_the_next_look_at_others_is_far_away(watch: Callable[..., MemoryWatch]) -> None:
    played, other = Played(LITTLE, MUCH), Played(alarms=False)
    watch(played, other)
    await happens(other.suspected)

    played.ring()
    await happens(played.killed)

    assert (played.out_of_memory, other.out_of_memory) == (True, False)


async def test_one_that_has_raised_an_alarm_is_looked_at_with_its_next_request(
    watch: Callable[..., MemoryWatch],
) -> None:
    played = Played(LITTLE, MUCH)
    watching = watch(played)
    played.calls.clear()
    played.ring()
    await happens(played.suspected)
    await asyncio.sleep(0)  # without a request, the alarm causes no measurement

    played.calls[2] = None
    watching.note_work(cast(Any, played))
    await happens(played.killed)

    assert played.out_of_memory
