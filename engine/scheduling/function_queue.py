"""One function's waiting entries, in order: a bounded window in memory over an unbounded line on disk.

Up to its *horizon* the window holds every waiting entry; behind it they are only on disk. Without a horizon all of
them are here. What is offered from behind the horizon is left on disk; when the window grows too large its end is
let go, which moves the horizon forward; when it runs low the next page is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from engine.model import Invocation

#: Before the first: a window with this horizon knows that rows wait on disk, and holds none of them.
BEGINNING = (float("-inf"), 0)


class Entry:
    """An invocation in the queue, and who waits for it."""

    __slots__ = ("invocation", "memory", "reply", "seconds", "sharing")

    def __init__(self, invocation: Invocation, reply: Any = None) -> None:
        self.invocation = invocation
        self.reply = reply  #: future of a synchronous caller
        self.seconds = 0.0  #: what its function was charged when it was chosen
        self.memory = 0  #: MB it took then for itself
        self.sharing = False  #: it took a place on an instance of several instead

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
        """Take it in, if it belongs into the window."""
        if self.horizon is None or entry.invocation.rank_key <= self.horizon:
            self._add(entry)
        elif self.loading:
            self._arrivals.append(entry)

    def head(self) -> Entry:
        """The next one; the line must not be empty."""
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
        """Let go of the end, down to ``rows`` entries of about ``size`` bytes; the first always stays."""
        if self.loading:
            return  # the page under way begins at the present horizon
        kept: list[tuple[float, int]] = []
        members: dict[int, Entry] = {}
        held = 0
        # One that was taken out and came back has two places in the heap.
        for place in sorted({place for place in self._heap if place[1] in self._members}):
            entry = self._members[place[1]]
            if kept and (len(kept) >= rows or held + entry.size > size):
                self.horizon = kept[-1]
                break
            kept.append(place)
            members[place[1]] = entry
            held += entry.size
        self._heap, self._members, self.size = kept, members, held

    def refill(self, page: Iterable[Entry], complete: bool) -> None:
        """Add the page that was read from the horizon on, and what arrived meanwhile."""
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
