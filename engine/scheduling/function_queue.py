"""Queue of one function: a bounded, sorted window in memory over an unbounded backlog on disk.

The window has every waiting entry up to its *horizon*, which is a position (rank, key) in the function's order. Entries
after the horizon are only on disk. Without a horizon, the window has all entries.

- A new entry after the horizon is not added to the window.
- If the window grows too large, its last entries are dropped from memory, and the horizon becomes the last one left.
- If few entries are left in the window, the next page is read from disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from engine.model import Invocation

#: Rank key before every entry. With this horizon, the window is empty and all rows are only on disk.
BEGINNING = (float("-inf"), 0)


class Entry:
    """Invocation that waits or runs, with the future of its synchronous caller and the capacity that its run takes."""

    __slots__ = ("invocation", "memory", "passed", "reply", "seconds", "sharing")

    def __init__(self, invocation: Invocation, reply: Any = None) -> None:
        self.invocation = invocation
        self.reply = reply  #: future for the outcome of a synchronous call, otherwise None
        self.seconds = 0.0  #: expected seconds, charged to the function at the start
        self.memory = 0  #: MiB taken for this run; 0 if ``sharing``
        self.passed = 0  #: MiB taken before the first invocation, see ``RunQueue``
        self.sharing = False  #: the run is on an instance that serves several requests

    @property
    def size(self) -> int:
        return len(self.invocation.payload)


class FunctionQueue:
    def __init__(self) -> None:
        self.horizon: tuple[float, int] | None = None
        self.loading = False
        self.outdated = False  #: the page that is being read must be ignored
        self.size = 0  #: payload bytes of the window
        self._heap: list[tuple[float, int]] = []
        self._members: dict[int, Entry] = {}
        self._arrivals: list[Entry] = []

    def __len__(self) -> int:
        return len(self._members)

    def offer(self, entry: Entry) -> bool:
        """Add an entry whose position is not after the horizon. Return False if the entry is only on disk.

        Entries after the horizon are ignored, unless a page is being read from disk. ``refill`` then adds them.
        """
        if self.horizon is None or entry.invocation.rank_key <= self.horizon:
            self._add(entry)
        elif self.loading:
            self._arrivals.append(entry)
        else:
            return False
        return True

    def entries(self) -> list[Entry]:
        """Return all entries in memory, in no order."""
        return list(self._members.values())

    def empty(self) -> None:
        """Drop all entries from memory, and ignore the page that is being read. All rows are only on disk then."""
        self._heap, self._members, self._arrivals, self.size = [], {}, [], 0
        self.horizon, self.outdated = BEGINNING, self.loading

    def head(self) -> Entry:
        """Return the first entry without removing it. The queue must not be empty."""
        while self._heap[0][1] not in self._members:
            heappop(self._heap)  # the entry was removed by ``remove``
        return self._members[self._heap[0][1]]

    def pop(self) -> Entry:
        entry = self.head()
        heappop(self._heap)
        del self._members[entry.invocation.key]
        self.size -= entry.size
        return entry

    def remove(self, key: int) -> Entry | None:
        entry = self._members.pop(key, None)
        if entry is not None:
            self.size -= entry.size
            return entry
        arrived = next((arrival for arrival in self._arrivals if arrival.invocation.key == key), None)
        if arrived is not None:
            self._arrivals.remove(arrived)
        return arrived

    def trim(self, rows: int, size: int) -> None:
        """Drop the last entries from memory, until at most ``rows`` entries and ``size`` bytes are left.

        The first entry always stays. Does nothing while a page is being read from disk.
        """
        if self.loading:
            return  # the page that is being read begins at the current horizon, which must not move
        kept: list[tuple[float, int]] = []
        members: dict[int, Entry] = {}
        held = 0
        # An entry that was removed and added again is in the heap twice.
        for rank_key in sorted({rank_key for rank_key in self._heap if rank_key[1] in self._members}):
            entry = self._members[rank_key[1]]
            if kept and (len(kept) >= rows or held + entry.size > size):
                self.horizon = kept[-1]
                break
            kept.append(rank_key)
            members[rank_key[1]] = entry
            held += entry.size
        self._heap, self._members, self.size = kept, members, held

    def refill(self, page: Iterable[Entry], complete: bool) -> None:
        """Add a page that was read after the horizon, and the entries that were offered during the read.

        ``complete`` means that no invocations after this page wait on disk. A page whose read began before ``empty`` is
        ignored.
        """
        if self.outdated:
            page, complete, self.outdated = (), False, False
        arrivals, self._arrivals, self.loading = self._arrivals, [], False
        entries = list(page)
        if complete:
            self.horizon = None
        elif entries:
            self.horizon = entries[-1].invocation.rank_key
        for entry in entries:
            self._add(entry)
        for entry in arrivals:
            self.offer(entry)

    def _add(self, entry: Entry) -> None:
        key = entry.invocation.key
        if key not in self._members:
            self._members[key] = entry
            heappush(self._heap, entry.invocation.rank_key)
            self.size += entry.size
