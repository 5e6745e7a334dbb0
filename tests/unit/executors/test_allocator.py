"""Slots of instances under any order of requests, starts and exits."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.executors.allocator import Allocator, Start, Wait
from engine.executors.outcomes import Ended
from engine.executors.process import End, Instance, Key

KEY: Key = (1, "latest", 1, 128)


class Bare:
    """Part of an instance that the allocator uses."""

    def __init__(self, allocator: Allocator, concurrency: int) -> None:
        self.allocator, self.key, self.concurrency = allocator, KEY, concurrency
        self.assigned, self.ready, self.obsolete = 0, False, False
        self.end: End | None = None
        self.idle_since = 0.0

    def dismiss(self) -> None:
        self.end = End.RETIRED
        self.allocator.discard(cast(Instance, self))


class Crowd:
    """Concurrent requests, on instances that start and exit."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.allocator = Allocator(1000.0, lambda instance: False)
        self.instances: list[Instance] = []
        self.starts: list[Start] = []
        self.held: list[Instance] = []  #: one entry for each slot
        self.waits: list[tuple[Start, Wait]] = []

    def come(self, pick: int) -> None:
        instance = self.allocator.acquire(KEY)
        if instance is not None:
            assert instance.ready
            self.held.append(instance)
        elif (joined := self.allocator.join_starting(KEY)) is not None:
            self.waits.append(joined)
        else:
            self.begin(assigned=1)

    def warm(self, pick: int) -> None:
        self.begin(assigned=0)

    def begin(self, assigned: int) -> None:
        instance = cast(Instance, Bare(self.allocator, self.concurrency))
        self.instances.append(instance)
        self.starts.append(self.allocator.begin(instance, assigned))
        self.held += [instance] * assigned

    def go(self, pick: int) -> None:
        """End a request that was served or has lost its instance."""
        served = [one for one in self.held if one.ready or one.end is not None]
        if served:
            instance = served[pick % len(served)]
            self.held.remove(instance)
            self.allocator.release(instance)

    def give_up(self, pick: int) -> None:
        """Cancel a request that waits for a start."""
        if self.waits:
            start, wait = self.waits.pop(pick % len(self.waits))
            wait.cancel()
            self.allocator.release(start.instance)

    def finish(self, pick: int) -> None:
        if self.starts:
            start = self.starts.pop(pick % len(self.starts))
            self.allocator.finish(start, None)
            for joined in [one for one in self.waits if one[0] is start]:
                assert joined[1].verdict.done()
                self.waits.remove(joined)
                self.held.append(start.instance)

    def die(self, pick: int) -> None:
        alive = [one for one in self.instances if one.end is None]
        if alive:
            instance = alive[pick % len(alive)]
            instance.end = End.EXITED
            self.allocator.discard(instance)

    def retire(self, pick: int) -> None:
        alive = [one for one in self.instances if one.end is None]
        if alive:
            self.allocator.retire(alive[pick % len(alive)])

    def check(self) -> None:
        for instance in self.instances:
            waiting = sum(start.instance is instance for start, _ in self.waits)
            assert instance.assigned == self.held.count(instance) + waiting
            assert instance.assigned <= instance.concurrency
            fit = instance.ready and not instance.obsolete and instance.end is None
            assert (instance in self.allocator.idle) == (fit and instance.assigned == 0)
            assert (instance in self.allocator._open.get(KEY, {})) == (
                fit and 0 < instance.assigned < instance.concurrency and instance.concurrency > 1
            )
            if instance.obsolete and instance.ready and instance.assigned == 0:
                assert instance.end is not None


STEPS = ("come", "come", "come", "go", "go", "finish", "finish", "give_up", "warm", "die", "retire")


@pytest.mark.parametrize("concurrency", [1, 3])
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), max_size=40))
def test_a_slot_is_taken_once_and_every_free_one_can_be_found(concurrency: int, steps: list[tuple[str, int]]) -> None:
    async def walk() -> None:
        crowd = Crowd(concurrency)
        for step, pick in steps:
            getattr(crowd, step)(pick)
            crowd.check()
        crowd.allocator.idle.close()

    asyncio.run(walk())


async def test_who_waits_ends_like_the_start_unless_it_was_cancelled_before() -> None:
    allocator = Allocator(1000.0, lambda instance: False)
    start = allocator.begin(cast(Instance, Bare(allocator, 3)), assigned=1)
    joined = [allocator.join_starting(KEY), allocator.join_starting(KEY)]
    waits = [one[1] for one in joined if one is not None]
    waits[0].cancel()
    failed = cast(Ended, object())

    allocator.finish(start, failed)

    assert allocator.join_starting(KEY) is None
    assert (waits[0].verdict.result() is failed, waits[1].verdict.result() is failed) == (False, True)
    allocator.idle.close()
