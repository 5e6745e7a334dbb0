"""Places: which instance takes one more request.

    one that works and has a place free → one that is idle → one on its way with a place free → none

Working ones come first, so that others become idle and can go. An instance of a function without concurrency has one
place. Who takes a place gives it back. On an instance that is on its way it is taken beforehand, and then awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.executors.idle import IdleInstances
from engine.executors.log_buffer import NOTHING
from engine.executors.outcomes import CANCELLED, Ended
from engine.executors.process import Instance, Key


class Wait:
    """One request that has no instance yet: for the first, an interpreter is looked for, others wait for a start.

    ``verdict`` is what it ends with; None: see which instance there is now.
    """

    __slots__ = ("cancelled", "verdict")

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def cancel(self) -> bool:
        """False if it is over."""
        if not self.verdict.done():
            self.verdict.set_result(None)
        elif self.verdict.cancelled() or self.verdict.result():
            return False
        self.cancelled = True
        return True

    async def decided(self) -> Ended | None:
        """The verdict. Until who waits has heard of it, it can be cancelled though there is an instance for it."""
        verdict = await self.verdict
        return Ended(CANCELLED.answer, NOTHING) if self.cancelled else verdict


class Start:
    """An instance on its way, and who waits for it besides the one that starts it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.waits: list[Wait] = []

    def decide(self, verdict: Ended | None) -> None:
        """The instance is ready or will never be; then they may try again, or end like the one that started it."""
        for wait in self.waits:
            if not wait.verdict.done():
                wait.verdict.set_result(verdict)


class Allocator:
    def __init__(self, idle: float, keeps: Callable[[Instance], bool]) -> None:
        self.idle = IdleInstances(idle, lambda instance: instance.dismiss(), keeps)
        self._open: dict[Key, dict[Instance, None]] = {}  #: at work, with places free
        self._starts: dict[Key, list[Start]] = {}

    def take(self, key: Key) -> Instance | None:
        """A place on an instance that is ready."""
        opened = self._open.get(key)
        instance = next(reversed(opened)) if opened else self.idle.take(key)
        if instance is not None:
            instance.taken += 1
            if instance.concurrency > 1:
                self._sort(instance)
        return instance

    def give(self, instance: Instance) -> None:
        """Back; whoever has lost its instance does so too."""
        instance.taken -= 1
        if instance.ready and instance.end is None:
            self._settle(instance)

    def begin(self, instance: Instance, taken: int) -> Start:
        """It is on its way, with so many places taken already."""
        instance.taken = taken
        start = Start(instance)
        self._starts.setdefault(instance.key, []).append(start)
        return start

    def join(self, key: Key) -> tuple[Start, Wait] | None:
        """A place on an instance that is on its way."""
        for start in self._starts.get(key, ()):
            if start.instance.taken < start.instance.concurrency and not start.instance.obsolete:
                start.instance.taken += 1
                wait = Wait()
                start.waits.append(wait)
                return start, wait
        return None

    def finish(self, start: Start, verdict: Ended | None) -> None:
        """It is ready, or will never be."""
        instance = start.instance
        starts = self._starts[instance.key]
        starts.remove(start)
        if not starts:
            del self._starts[instance.key]
        if instance.end is None:
            instance.ready = True
            self._settle(instance)
        start.decide(verdict)

    def retire(self, instance: Instance) -> bool:
        """It takes no more requests; True if it is gone already, since it had none."""
        if instance in self.idle:
            instance.dismiss()
            return True
        instance.obsolete = True
        self._close(instance)
        return False

    def discard(self, instance: Instance) -> None:
        """It has ended."""
        self.idle.discard(instance)
        self._close(instance)

    def _settle(self, instance: Instance) -> None:
        if instance.concurrency > 1:
            self._sort(instance)
        if instance.taken == 0:
            if instance.obsolete:
                instance.dismiss()
            else:
                self.idle.put(instance)

    def _sort(self, instance: Instance) -> None:
        if 0 < instance.taken < instance.concurrency and not instance.obsolete:
            self._open.setdefault(instance.key, {})[instance] = None
        else:
            self._close(instance)

    def _close(self, instance: Instance) -> None:
        opened = self._open.get(instance.key)
        if opened is not None and instance in opened:
            del opened[instance]
            if not opened:
                del self._open[instance.key]
