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
from engine.model.retry import MAX_CRASHES
from engine.scheduling.function_queue import BEGINNING, Entry, FunctionQueue

_MEAN = 0.2  #: weight of the newest run in the mean
_CHEAPEST = 0.0005  #: seconds: nobody runs for nothing


class Share(Struct, kw_only=True):
    """A function's part of the machine."""

    weight: float = 1.0
    limit: int = -1  #: runs at a time; -1 none
    memory: int = 0  #: MB an instance takes
    concurrent_requests: int = 1  #: runs that an instance serves at a time
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
        return self.concurrent_requests > 1 and invocation.memory in (0, self.memory)

    def need(self, invocation: Invocation) -> int:
        """MB that its start takes."""
        if self.shares(invocation) and self.sharing < self.concurrent_requests * len(self.grants):
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


class ModeQueue:
    """Lines of one mode, and the order of the functions that could go next."""

    def __init__(self) -> None:
        self.queues: dict[int, FunctionQueue] = {}
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
        suspect_crashes: int = MAX_CRASHES,
    ) -> None:
        self._slots = slots
        self._sync_slots = sync_slots
        self._memory = memory
        self._rows, self._size, self._all_size = window_rows, window_size, windows_size
        self._suspect_crashes = suspect_crashes
        self._shares: dict[int, Share] = {}
        self._sync, self._async = ModeQueue(), ModeQueue()
        self._running = 0
        self._virtual = 0.0
        self._used_memory = 0
        self._held = 0  #: payload bytes in all asynchronous windows
        self._alone = False
        self._low: set[int] = set()
        self._gone: set[int] = set()

    # --- what a function may use ----------------------------------------------------------------------------

    def configure(
        self, function_id: int, *, weight: float, limit: int, memory: int, concurrent_requests: int = 1
    ) -> None:
        """Set a function's share: ``limit`` runs, so many ``concurrent_requests`` in an instance of ``memory`` MB.

        A higher limit takes effect at the next pop.
        """
        share = self._share(function_id)
        share.weight, share.limit, share.memory, share.concurrent_requests = weight, limit, memory, concurrent_requests
        self._requeue(function_id)

    def expect(self, function_id: int) -> None:
        """Rows of this function wait on disk."""
        queue = self._queue_of(self._async, function_id)
        queue.horizon = BEGINNING
        self._low.add(function_id)

    # --- in and out -----------------------------------------------------------------------------------------

    def push(self, entry: Entry) -> None:
        invocation = entry.invocation
        function_id, mode = invocation.function_id, invocation.mode
        mode_queue = self._mode_queue(mode)
        queue = self._queue_of(mode_queue, function_id)
        before = queue.size
        queue.offer(entry)
        if mode_queue is self._async:
            self._held += queue.size - before
            self._bound(queue)
        self._enqueue(mode_queue, function_id)

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
        self._mode_queue(invocation.mode).running -= 1
        self._running -= 1
        self._used_memory -= self._freed(share) if entry.sharing else entry.memory
        if self._suspect(invocation):
            self._alone = False
        self._requeue(invocation.function_id)
        if invocation.function_id in self._gone:
            self._clear(invocation.function_id)

    def remove(self, function_id: int, key: int) -> Entry | None:
        """Take a waiting one out, if it is in memory."""
        for mode_queue in (self._sync, self._async):
            queue = mode_queue.queues.get(function_id)
            if queue is None:
                continue
            before = queue.size
            entry = queue.remove(key)
            if entry is None:
                continue
            if mode_queue is self._async:
                self._held -= before - queue.size
                self._note_level(function_id)
            if function_id in self._gone:
                self._clear(function_id)
            return entry
        return None

    def drop(self, function_id: int) -> None:
        """The function is gone: let go of its asynchronous entries, and read none of them from the disk any more."""
        queue = self._async.queues.pop(function_id, None)
        if queue is not None:
            self._held -= queue.size
        self._low.discard(function_id)
        self._gone.add(function_id)
        self._clear(function_id)

    # --- the window over the disk ---------------------------------------------------------------------------

    def needs_refill(self) -> tuple[int, tuple[float, int]] | None:
        """Return a function whose window is low, and the horizon to read from. Then call ``refill`` or
        ``refill_failed``."""
        while self._low:
            function_id = self._low.pop()
            queue = self._async.queues.get(function_id)
            if queue is not None and queue.horizon is not None and not queue.loading:
                queue.loading = True
                return function_id, queue.horizon
        return None

    @property
    def is_low(self) -> bool:
        return bool(self._low)

    def refill(self, function_id: int, page: list[Entry], *, complete: bool) -> None:
        queue = self._queue_of(self._async, function_id)
        before = queue.size
        queue.refill(page, complete)
        self._held += queue.size - before
        self._bound(queue)
        self._note_level(function_id)
        self._enqueue(self._async, function_id)

    def refill_failed(self, function_id: int) -> None:
        """The page could not be read; it will be asked for again."""
        self._queue_of(self._async, function_id).refill((), complete=False)
        self._low.add(function_id)

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
        queues = [
            queue for mode_queue in (self._sync, self._async) for queue in mode_queue.queues.values() if len(queue)
        ]
        due = [queue.head().invocation.due_at for queue in queues]
        return QueueStatistics(
            running=self._running,
            running_sync=self._sync.running,
            memory=self._used_memory,
            waiting_in_memory=sum(len(queue) for queue in queues),
            window_bytes=self._held,
            oldest_due_at=min(due) if due else None,
            functions=len(self._shares),
        )

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, mode_queue: ModeQueue) -> Entry | None:
        while mode_queue.order:
            virtual, function_id = mode_queue.order[0]
            share, queue = self._shares.get(function_id), mode_queue.queues.get(function_id)
            if share is None or not queue or share.full:
                heappop(mode_queue.order)
                mode_queue.queued.discard(function_id)
            elif virtual != share.virtual:
                heapreplace(mode_queue.order, (share.virtual, function_id))
            elif self._fits(queue.head().invocation, share):
                return self._take(mode_queue, queue, share)
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

    def _take(self, mode_queue: ModeQueue, queue: FunctionQueue, share: Share) -> Entry:
        entry = queue.pop()
        invocation = entry.invocation
        self._virtual = share.virtual
        entry.seconds = share.seconds
        self._used_memory += self._grant(entry, share)
        share.virtual += share.seconds / share.weight
        share.running += 1
        mode_queue.running += 1
        self._running += 1
        if invocation.mode is Mode.ASYNC:
            self._held -= entry.size
            self._alone = self._suspect(invocation)
            self._note_level(invocation.function_id)
        return entry

    def _grant(self, entry: Entry, share: Share) -> int:
        """MB that it takes, noted where they will be given back."""
        memory = min(share.need(entry.invocation), self._memory)
        entry.sharing = share.shares(entry.invocation)
        if not entry.sharing:
            entry.memory = memory
            return memory
        if share.sharing >= share.concurrent_requests * len(share.grants):
            share.grants.append(memory)
        share.sharing += 1
        return memory

    def _freed(self, share: Share) -> int:
        """MB of the instances that are not needed any more, now that a run of theirs has ended."""
        share.sharing -= 1
        freed = 0
        while share.grants and share.concurrent_requests * (len(share.grants) - 1) >= share.sharing:
            freed += share.grants.pop()
        return freed

    def _suspect(self, invocation: Invocation) -> bool:
        return invocation.crash_count >= self._suspect_crashes

    # --- keeping order --------------------------------------------------------------------------------------

    def _share(self, function_id: int) -> Share:
        share = self._shares.get(function_id)
        if share is None:
            share = self._shares[function_id] = Share()
        return share

    def _mode_queue(self, mode: Mode) -> ModeQueue:
        return self._async if mode is Mode.ASYNC else self._sync

    def _queue_of(self, mode_queue: ModeQueue, function_id: int) -> FunctionQueue:
        queues = mode_queue.queues
        queue = queues.get(function_id)
        if queue is None:
            queue = queues[function_id] = FunctionQueue()
        return queue

    def _clear(self, function_id: int) -> None:
        """Keep nothing of a function that is gone, once no run and no call of it is left."""
        share = self._shares.get(function_id)
        if (share is None or not share.running) and not self._sync.queues.get(function_id):
            self._shares.pop(function_id, None)
            for mode_queue in (self._sync, self._async):
                mode_queue.queues.pop(function_id, None)

    def _requeue(self, function_id: int) -> None:
        self._enqueue(self._sync, function_id)
        self._enqueue(self._async, function_id)

    def _enqueue(self, mode_queue: ModeQueue, function_id: int) -> None:
        """Let the function compete, if it has something to run and does not compete already."""
        if function_id in mode_queue.queued:
            return
        queue, share = mode_queue.queues.get(function_id), self._share(function_id)
        if queue and not share.full:
            share.virtual = max(share.virtual, self._virtual)
            heappush(mode_queue.order, (share.virtual, function_id))
            mode_queue.queued.add(function_id)

    def _bound(self, queue: FunctionQueue) -> None:
        if len(queue) > 2 * self._rows or queue.size > 2 * self._size:
            before = queue.size
            queue.trim(self._rows, self._size)
            self._held += queue.size - before
        elif self._held > self._all_size and len(queue) > 1:
            before = queue.size
            queue.trim(len(queue) // 2, queue.size // 2)
            self._held += queue.size - before

    def _note_level(self, function_id: int) -> None:
        queue = self._async.queues[function_id]
        low = len(queue) <= self._rows // 4 and queue.size <= self._size // 4
        if self._held > self._all_size:
            low = not queue  # more would only be let go of again
        if low and queue.horizon is not None and not queue.loading:
            self._low.add(function_id)
