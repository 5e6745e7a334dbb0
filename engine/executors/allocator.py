"""Allocation of requests to instances.

An instance is chosen in this order: a busy instance that can serve a further request at the same time, an idle
instance, a starting instance that can serve a further request. If there is none, the caller starts an instance.

Busy instances are preferred, so that others become idle and can be dismissed. An instance serves at most
``concurrency`` requests at a time; its ``assigned`` counts the requests assigned to it. A caller to which an instance
was assigned must call ``release`` afterwards. A request may also be assigned to an instance that is still starting, and
then waits for this instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.executors.idle import IdleInstances
from engine.executors.log_buffer import NOTHING
from engine.executors.outcomes import CANCELLED, Ended
from engine.executors.process import Instance, Key


class Wait:
    """Request that waits for an interpreter, for the shared port, or for a starting instance.

    ``verdict`` is set to the end of the request if the request fails, or to None if it must look for an instance again.
    """

    __slots__ = ("cancelled", "verdict")

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def cancel(self) -> bool:
        """Cancel the waiting request. Return False if the request has ended already."""
        if not self.verdict.done():
            self.verdict.set_result(None)
        elif self.verdict.cancelled() or self.verdict.result():
            return False
        self.cancelled = True
        return True

    async def decided(self) -> Ended | None:
        """Wait for the verdict and return it. Return the end of a cancelled request if ``cancel`` was called.

        ``cancel`` takes effect until the waiting task resumes, even if an instance has become available meanwhile.
        """
        verdict = await self.verdict
        return Ended(CANCELLED.answer, NOTHING) if self.cancelled else verdict


class Start:
    """Starting instance, and the requests that wait for it, except the request for which it was started."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.waits: list[Wait] = []

    def decide(self, verdict: Ended | None) -> None:
        """Set the verdict of all waiting requests: the end of a failed start, or None to look for another instance."""
        for wait in self.waits:
            if not wait.verdict.done():
                wait.verdict.set_result(verdict)


class Allocator:
    """Ready and starting instances by ``Key`` (function, version, revision, memory), and their assigned requests."""

    def __init__(self, idle: float, keeps: Callable[[Instance], bool]) -> None:
        self.idle = IdleInstances(idle, lambda instance: instance.dismiss(), keeps)
        self._open: dict[Key, dict[Instance, None]] = {}  #: busy, with spare concurrency
        self._starts: dict[Key, list[Start]] = {}

    def acquire(self, key: Key) -> Instance | None:
        """Assign a request to a ready instance and return the instance.

        Return None if no instance can serve a further request.
        """
        opened = self._open.get(key)
        instance = next(reversed(opened)) if opened else self.idle.take(key)
        if instance is not None:
            instance.assigned += 1
            if instance.concurrency > 1:
                self._update_open(instance)
        return instance

    def release(self, instance: Instance) -> None:
        """End the assignment of one request to the instance. Call also if the instance has ended."""
        instance.assigned -= 1
        if instance.ready and instance.end is None:
            self._update(instance)

    def begin(self, instance: Instance, assigned: int) -> Start:
        """Register a starting instance, to which ``assigned`` requests are assigned already."""
        instance.assigned = assigned
        start = Start(instance)
        self._starts.setdefault(instance.key, []).append(start)
        return start

    def join_starting(self, key: Key) -> tuple[Start, Wait] | None:
        """Assign a request to a starting instance. Return None if no starting instance can serve a further request."""
        for start in self._starts.get(key, ()):
            if start.instance.assigned < start.instance.concurrency and not start.instance.obsolete:
                start.instance.assigned += 1
                wait = Wait()
                start.waits.append(wait)
                return start, wait
        return None

    def finish(self, start: Start, verdict: Ended | None) -> None:
        """Register that a starting instance is ready or has ended, and set the verdict of the waiting requests."""
        instance = start.instance
        starts = self._starts[instance.key]
        starts.remove(start)
        if not starts:
            del self._starts[instance.key]
        if instance.end is None:
            instance.ready = True
            self._update(instance)
        start.decide(verdict)

    def retire(self, instance: Instance) -> bool:
        """Assign no further requests to the instance.

        Return True if the instance was idle and has been dismissed at once.
        """
        if instance in self.idle:
            instance.dismiss()
            return True
        instance.obsolete = True
        self._remove_open(instance)
        return False

    def discard(self, instance: Instance) -> None:
        """Assign no further requests to an instance that has ended."""
        self.idle.discard(instance)
        self._remove_open(instance)

    def _update(self, instance: Instance) -> None:
        if instance.concurrency > 1:
            self._update_open(instance)
        if instance.assigned == 0:
            if instance.obsolete:
                instance.dismiss()
            else:
                self.idle.put(instance)

    def _update_open(self, instance: Instance) -> None:
        if 0 < instance.assigned < instance.concurrency and not instance.obsolete:
            self._open.setdefault(instance.key, {})[instance] = None
        else:
            self._remove_open(instance)

    def _remove_open(self, instance: Instance) -> None:
        opened = self._open.get(instance.key)
        if opened is not None and instance in opened:
            del opened[instance]
            if not opened:
                del self._open[instance.key]
