"""Instances without work: the newest of a kind is used first, the oldest of all is dismissed first.

Those that the reserve keeps are passed over, and looked at again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.executors.process import Instance, Key

_RESPITE = 60.0  #: seconds until an instance that is kept is looked at again, at least


class IdleInstances:
    """One timer for the instance that has been idle longest. ``dismiss`` is called with one that is no longer here."""

    def __init__(
        self, seconds: float, dismiss: Callable[[Instance], None], keeps: Callable[[Instance], bool] = lambda _: False
    ) -> None:
        self._seconds, self._dismiss, self._keeps = seconds, dismiss, keeps
        self._loop = asyncio.get_running_loop()
        self._by_key: dict[Key, list[Instance]] = {}
        self._by_age: dict[Instance, None] = {}  #: in the order in which they became idle
        self._timer: asyncio.TimerHandle | None = None

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

    def take(self, key: Key) -> Instance | None:
        """One of that kind, the last that was put."""
        same = self._by_key.get(key)
        if not same:
            return None
        instance = same.pop()
        del self._by_age[instance]
        return instance

    def discard(self, instance: Instance) -> None:
        if instance in self._by_age:
            del self._by_age[instance]
            same = self._by_key[instance.key]
            same.remove(instance)
            if not same:
                del self._by_key[instance.key]

    def dismiss_oldest(self) -> bool:
        """False if there is none that may go."""
        oldest = next((one for one in self._by_age if not self._keeps(one)), None)
        if oldest is None:
            return False
        self._let_go(oldest)
        return True

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for instance in list(self._by_age):
            self._let_go(instance)

    def _let_go(self, instance: Instance) -> None:
        self.discard(instance)
        self._dismiss(instance)

    def _respite(self, instance: Instance) -> None:
        instance.idle_since = self._loop.time() + _RESPITE
        del self._by_age[instance]
        self._by_age[instance] = None

    def _expire(self) -> None:
        """The timer is not touched when an instance is taken, so it may find that the next one has time left."""
        self._timer = None
        while (oldest := next(iter(self._by_age), None)) is not None:
            left = oldest.idle_since + self._seconds - self._loop.time()
            if left > 0:
                self._timer = self._loop.call_later(left, self._expire)
                return
            if self._keeps(oldest):
                self._respite(oldest)
            else:
                self._let_go(oldest)
