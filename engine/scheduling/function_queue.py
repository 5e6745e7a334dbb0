"""Queue of one function: its waiting entries in order, as a bounded window in memory over an unbounded backlog on disk.

The window holds every waiting entry up to its *horizon*. Entries after the horizon are only on disk. Without a
horizon, the window holds all entries.

- An offered entry after the horizon stays on disk.
- When the window grows too large, its end is dropped from memory, and the horizon moves to an earlier rank.
- When the window runs low, the next page is read from disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from engine.model import Invocation

#: Rank key before the first entry. With this horizon, rows wait on disk and the window holds none of them.
BEGINNING = (float("-inf"), 0)


class Entry:
    """Invocation in the queue, with the future of its caller and the capacity that it takes."""

    __slots__ = ("invocation", "memory", "reply", "seconds", "sharing")

    def __init__(self, invocation: Invocation, reply: Any = None) -> None:
        self.invocation = invocation
        self.reply = reply  #: future of a synchronous caller
        self.seconds = 0.0  #: seconds charged to its function at the start
        self.memory = 0  #: MB taken at the start for this run alone
        self.sharing = False  #: runs on an instance that serves several requests

    @property
    def size(self) -> int:
        return len(self.invocation.payload)


class FunctionQueue:
    def __init__(self) -> None:
        self.horizon: tuple[float, int] | None = None
        self.loading = False
        self.size = 0  #: payload bytes held
        self._heap: list[tuple[float, int]] = []
        self._members: dict[int, Entry] = {}
        self._arrivals: list[Entry] = []

    def __len__(self) -> int:
        return len(self._members)

    def offer(self, entry: Entry) -> None:
        """Add an entry if it belongs into the window."""
        if self.horizon is None or entry.invocation.rank_key <= self.horizon:
            self._add(entry)
        elif self.loading:
            self._arrivals.append(entry)

    def head(self) -> Entry:
        """Return the first entry. The queue must not be empty."""
        while self._heap[0][1] not in self._members:
            heappop(self._heap)  # removed earlier
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
        arrived = next((one for one in self._arrivals if one.invocation.key == key), None)
        if arrived is not None:
            self._arrivals.remove(arrived)
        return arrived

    def trim(self, rows: int, size: int) -> None:
        """Drop entries at the end, down to ``rows`` entries of about ``size`` bytes; the first always stays."""
        if self.loading:
            return  # the page being read begins at the current horizon
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
        """Add the page that was read from the horizon on, and entries that arrived meanwhile.

        ``complete``: no further rows wait on disk.
        """
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
