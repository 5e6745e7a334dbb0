"""Reserve: the number of instances of each function that are kept alive without work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import repeat

from engine.executors.call import Key, key_of
from engine.executors.instance import Instance
from engine.model import Function
from engine.model.signal import Signal


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
