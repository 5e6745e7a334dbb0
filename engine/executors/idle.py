"""Idle instances, and the reserve: the number of instances of each function that are kept alive without work.

A request takes the instance of its ``Key`` (function, version, revision, memory) that became idle last. The instance
that has been idle for longest is dismissed first. Reserved instances are not dismissed, but checked again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import repeat

from engine.executors.call import Key, key_of
from engine.executors.instance import Instance
from engine.model import Function
from engine.model.signal import Signal

_KEEP_INTERVAL = 60.0  #: minimum seconds until an instance that was kept is checked again


class IdleInstances:
    """Idle instances, and one timer for the instance that has been idle for longest.

    An instance that is idle for ``seconds`` is removed and passed to ``dismiss``, unless ``keeps`` returns True for it
    because it is a reserved instance.
    """

    def __init__(
        self, seconds: float, dismiss: Callable[[Instance], None], keeps: Callable[[Instance], bool] = lambda _: False
    ) -> None:
        self._seconds, self._dismiss, self._keeps = seconds, dismiss, keeps
        self._loop = asyncio.get_running_loop()
        self._by_key: dict[Key, list[Instance]] = {}
        self._by_age: dict[Instance, None] = {}  #: in the order in which they became idle
        self._timer: asyncio.TimerHandle | None = None
        self.on_put: Callable[[], None] | None = None  #: called for each; set by the pool

    def __len__(self) -> int:
        return len(self._by_age)

    def __contains__(self, instance: Instance) -> bool:
        return instance in self._by_age

    def put(self, instance: Instance) -> None:
        instance.idle_since = self._loop.time()
        self._by_key.setdefault(instance.key, []).append(instance)
        self._by_age[instance] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._expire)
        if self.on_put is not None:
            self.on_put()

    def take(self, key: Key) -> Instance | None:
        """Remove and return the instance with this key that became idle last. Return None if there is none."""
        same = self._by_key.get(key)
        if not same:
            return None
        instance = same.pop()
        del self._by_age[instance]
        return instance

    def discard(self, instance: Instance) -> None:
        """Remove an instance that is idle or was idle before, and forget its key if no other has the key."""
        same = self._by_key.get(instance.key, [])
        if instance in self._by_age:
            del self._by_age[instance]
            same.remove(instance)
        if not same:
            self._by_key.pop(instance.key, None)

    def dismiss_oldest(self, suits: Callable[[Instance], bool] = lambda instance: True) -> bool:
        """Dismiss the instance idle for longest among those that suit, apart from reserved ones.

        Return False if there is none.
        """
        oldest = next((each for each in self._by_age if suits(each) and not self._keeps(each)), None)
        if oldest is None:
            return False
        self._remove(oldest)
        return True

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for instance in list(self._by_age):
            self._remove(instance)

    def _remove(self, instance: Instance) -> None:
        self.discard(instance)
        self._dismiss(instance)

    def _expire(self) -> None:
        """Dismiss the instances that were idle for the full time, and set the timer for the next instance.

        ``take`` does not reset the timer. The timer may therefore end before the time of the instance that is now idle
        for longest.
        """
        self._timer = None
        while (oldest := next(iter(self._by_age), None)) is not None:
            left = oldest.idle_since + self._seconds - self._loop.time()
            if left > 0:
                self._timer = self._loop.call_later(left, self._expire)
                return
            if self._keeps(oldest):
                oldest.idle_since = self._loop.time() + _KEEP_INTERVAL
                self._by_age[oldest] = self._by_age.pop(oldest)  # now the last
            else:
                self._remove(oldest)


class Reserve:
    """Numbers of reserved instances, one for each function that has reserved instances.

    ``alive`` is the set of all instances, which the allocator changes. ``lost`` announces that an instance has ended
    whose function has a number of reserved instances.
    """

    def __init__(self, alive: Collection[Instance]) -> None:
        self.lost: Signal[[]] = Signal()
        self._alive = alive
        self._wanted: dict[Key, tuple[Function, int]] = {}

    def want(self, wanted: Iterable[tuple[Function, int]]) -> None:
        """Replace the numbers of reserved instances of all functions.

        Instances that exceed the number of their function are dismissed when idle, like those of functions without a
        number.
        """
        self._wanted = {key_of(function): (function, count) for function, count in wanted}

    def keeps(self, instance: Instance) -> bool:
        """Return whether the function would have too few reserved instances without this instance."""
        wanted = self._wanted.get(instance.key)
        return wanted is not None and self._count(instance.key) <= wanted[1]

    def shortage(self) -> Iterator[Function]:
        """Yield each function as many times as it lacks reserved instances."""
        for key, (function, count) in self._wanted.items():
            yield from repeat(function, max(0, count - self._count(key)))

    def note_end(self, instance: Instance) -> None:
        if instance.key in self._wanted:
            self.lost()

    def _count(self, key: Key) -> int:
        return sum(1 for instance in self._alive if instance.key == key and not instance.obsolete)
