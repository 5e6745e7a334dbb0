"""Which invocation is next: pure order, no clock, no loop.

    synchronous first → fair share between functions → rank within one → its limit → free slot and memory

*Fair share* is weighted fair queueing on slot-seconds: each function has a virtual time that advances by what its
runs cost, divided by its weight; the function that is furthest behind goes next. A run is charged at its start by
the mean of the function's earlier ones, and corrected at its end. A function that comes back from idleness starts at
the present virtual time: it neither saved up credit nor owes.

*Capacity* is one ledger of slots and memory. Where an instance serves several requests, memory is taken for each
instance that so many runs need, not for each run. Asynchronous work leaves ``sync_slots`` free. Whoever is next but
does not fit keeps its place: smaller ones behind it wait too, so that large ones are never starved. An invocation
that was running at three engine deaths takes all asynchronous slots, so that it runs alone.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

from msgspec import Struct, field

from engine.model import Invocation, Mode
from engine.model.retry import MAX_DEATHS
from engine.scheduling.function_queue import BEGINNING, Entry, Line

_MEAN = 0.2  #: weight of the newest run in the mean
_CHEAPEST = 0.0005  #: seconds: nobody runs for nothing


class Share(Struct, kw_only=True):
    """A function's part of the machine."""

    weight: float = 1.0
    limit: int = -1  #: runs at a time; -1 none
    memory: int = 0  #: MB an instance takes
    places: int = 1  #: runs that an instance serves at a time
    running: int = 0
    sharing: int = 0  #: of them on instances that serve several
    grants: list[int] = field(default_factory=list)  #: MB taken for each of these instances
    virtual: float = 0.0
    seconds: float = 0.01  #: mean of its runs

    @property
    def full(self) -> bool:
        return self.limit >= 0 and self.running >= self.limit

    def shares(self, invocation: Invocation) -> bool:
        """Whether it runs beside others; one that chose its memory has an instance of another size."""
        return self.places > 1 and invocation.memory in (0, self.memory)

    def need(self, invocation: Invocation) -> int:
        """MB that its start takes."""
        if self.shares(invocation) and self.sharing < self.places * len(self.grants):
            return 0
        return invocation.memory or self.memory


class QueueStatistics(Struct, frozen=True, kw_only=True):
    running: int
    running_sync: int
    memory: int
    waiting_in_memory: int
    window_bytes: int
    oldest_due_at: float | None  #: of the heads
    functions: int  #: that are known here


class Lane:
    """Lines of one mode, and the order of the functions that could go next."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.order: list[tuple[float, int]] = []  #: (virtual time when queued, function); looked at anew when on top
        self.queued: set[int] = set()
        self.running = 0


class RunQueue:
    def __init__(
        self,
        *,
        slots: int,
        sync_slots: int,
        memory: int,
        window_rows: int = 256,
        window_size: int = 4 << 20,
        windows_size: int = 64 << 20,
        suspect_deaths: int = MAX_DEATHS,
    ) -> None:
        self._slots = slots
        self._sync_slots = sync_slots
        self._memory = memory
        self._rows, self._size, self._all_size = window_rows, window_size, windows_size
        self._suspect_deaths = suspect_deaths
        self._shares: dict[int, Share] = {}
        self._sync, self._async = Lane(), Lane()
        self._running = 0
        self._virtual = 0.0
        self._used_memory = 0
        self._held = 0  #: payload bytes in all asynchronous windows
        self._alone = False
        self._hungry: set[int] = set()
        self._gone: set[int] = set()

    # --- what a function may use ----------------------------------------------------------------------------

    def configure(self, function_id: int, *, weight: float, limit: int, memory: int, places: int = 1) -> None:
        """Set a function's share: ``limit`` runs, ``places`` of them in an instance of so many MB of memory.

        A higher limit takes effect at the next pop.
        """
        share = self._share(function_id)
        share.weight, share.limit, share.memory, share.places = weight, limit, memory, places
        self._requeue(function_id)

    def expect(self, function_id: int) -> None:
        """Rows of this function wait on disk."""
        line = self._line(self._async, function_id)
        line.horizon = BEGINNING
        self._hungry.add(function_id)

    # --- in and out -----------------------------------------------------------------------------------------

    def push(self, entry: Entry) -> None:
        invocation = entry.invocation
        function_id, mode = invocation.function_id, invocation.mode
        lane = self._lane(mode)
        line = self._line(lane, function_id)
        before = line.size
        line.offer(entry)
        if lane is self._async:
            self._held += line.size - before
            self._bound(line)
        self._enqueue(lane, function_id)

    def pop(self, *, asynchronous: bool = True) -> Entry | None:
        """The next one to run, with its slot and memory taken; None if nothing may start now."""
        if self._running >= self._slots:
            return None
        if self._sync.order:
            entry = self._choose(self._sync)
            if entry is not None or self._sync.order:  # one that does not fit yet keeps its place before all others
                return entry
        if asynchronous and self._async.order and self._running < self._slots - self._sync_slots:
            return self._choose(self._async)
        return None

    def release(self, entry: Entry, seconds: float) -> None:
        """Give back what ``pop`` took; the run lasted ``seconds``."""
        invocation = entry.invocation
        share = self._share(invocation.function_id)
        share.running -= 1
        share.virtual += (seconds - entry.seconds) / share.weight
        share.seconds = max(_CHEAPEST, share.seconds * (1 - _MEAN) + seconds * _MEAN)
        self._lane(invocation.mode).running -= 1
        self._running -= 1
        self._used_memory -= self._freed(share) if entry.sharing else entry.memory
        if self._suspect(invocation):
            self._alone = False
        self._requeue(invocation.function_id)
        if invocation.function_id in self._gone:
            self._clear(invocation.function_id)

    def remove(self, function_id: int, key: int) -> Entry | None:
        """Take a waiting one out, if it is in memory."""
        for lane in (self._sync, self._async):
            line = lane.lines.get(function_id)
            if line is None:
                continue
            before = line.size
            entry = line.remove(key)
            if entry is None:
                continue
            if lane is self._async:
                self._held -= before - line.size
                self._note_hunger(function_id)
            if function_id in self._gone:
                self._clear(function_id)
            return entry
        return None

    def drop(self, function_id: int) -> None:
        """The function is gone: let go of its asynchronous entries, and read none of them from the disk any more."""
        line = self._async.lines.pop(function_id, None)
        if line is not None:
            self._held -= line.size
        self._hungry.discard(function_id)
        self._gone.add(function_id)
        self._clear(function_id)

    # --- the window over the disk ---------------------------------------------------------------------------

    def hungry(self) -> tuple[int, tuple[float, int]] | None:
        """A function whose window runs low, and the horizon to read on from; then call ``fill`` or ``starve``."""
        while self._hungry:
            function_id = self._hungry.pop()
            line = self._async.lines.get(function_id)
            if line is not None and line.horizon is not None and not line.loading:
                line.loading = True
                return function_id, line.horizon
        return None

    @property
    def is_hungry(self) -> bool:
        return bool(self._hungry)

    def fill(self, function_id: int, page: list[Entry], *, complete: bool) -> None:
        line = self._line(self._async, function_id)
        before = line.size
        line.fill(page, complete)
        self._held += line.size - before
        self._bound(line)
        self._note_hunger(function_id)
        self._enqueue(self._async, function_id)

    def starve(self, function_id: int) -> None:
        """The page could not be read; it will be asked for again."""
        self._line(self._async, function_id).fill((), complete=False)
        self._hungry.add(function_id)

    @property
    def page_rows(self) -> int:
        return self._rows

    @property
    def page_size(self) -> int:
        return self._size

    def running(self, function_id: int) -> int:
        share = self._shares.get(function_id)
        return share.running if share else 0

    def statistics(self) -> QueueStatistics:
        lines = [line for lane in (self._sync, self._async) for line in lane.lines.values() if len(line)]
        due = [line.head().invocation.due_at for line in lines]
        return QueueStatistics(
            running=self._running,
            running_sync=self._sync.running,
            memory=self._used_memory,
            waiting_in_memory=sum(len(line) for line in lines),
            window_bytes=self._held,
            oldest_due_at=min(due) if due else None,
            functions=len(self._shares),
        )

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, lane: Lane) -> Entry | None:
        while lane.order:
            virtual, function_id = lane.order[0]
            share, line = self._shares.get(function_id), lane.lines.get(function_id)
            if share is None or not line or share.full:
                heappop(lane.order)
                lane.queued.discard(function_id)
            elif virtual != share.virtual:
                heapreplace(lane.order, (share.virtual, function_id))
            elif self._fits(line.head().invocation, share):
                return self._take(lane, line, share)
            else:
                return None
        return None

    def _fits(self, invocation: Invocation, share: Share) -> bool:
        """Whether it may start, given that there is a slot."""
        need = min(share.need(invocation), self._memory)
        if self._running and self._used_memory + need > self._memory:
            return False
        if invocation.mode is Mode.SYNC:
            return True
        return not (self._alone or (self._suspect(invocation) and self._async.running))

    def _take(self, lane: Lane, line: Line, share: Share) -> Entry:
        entry = line.pop()
        invocation = entry.invocation
        self._virtual = share.virtual
        entry.seconds = share.seconds
        self._used_memory += self._grant(entry, share)
        share.virtual += share.seconds / share.weight
        share.running += 1
        lane.running += 1
        self._running += 1
        if invocation.mode is Mode.ASYNC:
            self._held -= entry.size
            self._alone = self._suspect(invocation)
            self._note_hunger(invocation.function_id)
        return entry

    def _grant(self, entry: Entry, share: Share) -> int:
        """MB that it takes, noted where they will be given back."""
        memory = min(share.need(entry.invocation), self._memory)
        entry.sharing = share.shares(entry.invocation)
        if not entry.sharing:
            entry.memory = memory
            return memory
        if share.sharing >= share.places * len(share.grants):
            share.grants.append(memory)
        share.sharing += 1
        return memory

    def _freed(self, share: Share) -> int:
        """MB of the instances that are not needed any more, now that a run of theirs has ended."""
        share.sharing -= 1
        freed = 0
        while share.grants and share.places * (len(share.grants) - 1) >= share.sharing:
            freed += share.grants.pop()
        return freed

    def _suspect(self, invocation: Invocation) -> bool:
        return invocation.deaths >= self._suspect_deaths

    # --- keeping order --------------------------------------------------------------------------------------

    def _share(self, function_id: int) -> Share:
        share = self._shares.get(function_id)
        if share is None:
            share = self._shares[function_id] = Share()
        return share

    def _lane(self, mode: Mode) -> Lane:
        return self._async if mode is Mode.ASYNC else self._sync

    def _line(self, lane: Lane, function_id: int) -> Line:
        lines = lane.lines
        line = lines.get(function_id)
        if line is None:
            line = lines[function_id] = Line()
        return line

    def _clear(self, function_id: int) -> None:
        """Keep nothing of a function that is gone, once no run and no call of it is left."""
        share = self._shares.get(function_id)
        if (share is None or not share.running) and not self._sync.lines.get(function_id):
            self._shares.pop(function_id, None)
            for lane in (self._sync, self._async):
                lane.lines.pop(function_id, None)

    def _requeue(self, function_id: int) -> None:
        self._enqueue(self._sync, function_id)
        self._enqueue(self._async, function_id)

    def _enqueue(self, lane: Lane, function_id: int) -> None:
        """Let the function compete, if it has something to run and does not compete already."""
        if function_id in lane.queued:
            return
        line, share = lane.lines.get(function_id), self._share(function_id)
        if line and not share.full:
            share.virtual = max(share.virtual, self._virtual)
            heappush(lane.order, (share.virtual, function_id))
            lane.queued.add(function_id)

    def _bound(self, line: Line) -> None:
        if len(line) > 2 * self._rows or line.size > 2 * self._size:
            before = line.size
            line.trim(self._rows, self._size)
            self._held += line.size - before
        elif self._held > self._all_size and len(line) > 1:
            before = line.size
            line.trim(len(line) // 2, line.size // 2)
            self._held += line.size - before

    def _note_hunger(self, function_id: int) -> None:
        line = self._async.lines[function_id]
        low = len(line) <= self._rows // 4 and line.size <= self._size // 4
        if self._held > self._all_size:
            low = not line  # more would only be let go of again
        if low and line.horizon is not None and not line.loading:
            self._hungry.add(function_id)
