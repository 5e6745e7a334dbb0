"""Run queue: order of ready invocations, and the capacity that runs take. Uses neither clock nor event loop.

    synchronous first → fair share between projects, then functions → rank within one function → its limit
    → free slot and memory

*Fair share* is weighted fair queueing on slot-seconds. Each project has a virtual time, which advances by the seconds
of its runs. Each function has one within its project, which advances by these seconds divided by its weight. The
function with the lowest virtual time, of the project with the lowest, is next. A run is charged at its start with the
mean duration of the function's earlier runs, and corrected at its end. A project or function that was idle starts at
the current virtual time, so that it neither gains nor loses from its pause.

*Other projects*: while there are several, a free slot is kept for each project that runs nothing, up to ``other_slots``
and half of the asynchronous ones, with as large a part of memory. These projects come first, so that the first run of
one waits for no end of another one's.

*Rate*: a start of asynchronous work takes a token of its function, see ``rates``. Synchronous calls take none.

*Capacity* is slots and memory. If an instance serves several requests, memory is taken for each instance that the runs
need, not for each run. Asynchronous work leaves ``sync_slots`` slots free. If the first invocation does not fit into
free memory, no later one starts, so that large functions are not starved; only projects that run nothing may take the
part of memory that is for them. An invocation that was dispatched at
three crashes of the engine takes all asynchronous slots, so that no other asynchronous work runs beside it.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush, heapreplace
from weakref import WeakValueDictionary

from msgspec import Struct

from engine.model import Invocation, Mode
from engine.model.invocation import Kind
from engine.model.retry import MAX_CRASHES
from engine.scheduling.function_queue import BEGINNING, Entry, FunctionQueue
from engine.scheduling.projects import Projects
from engine.scheduling.rates import Rates
from engine.scheduling.share import Order, ProjectShare, Share


class Obstacles(Struct, frozen=True, kw_only=True):
    """State of one function, from which follows why its next asynchronous invocation does not start."""

    limit: int  #: largest number of concurrent runs; -1: no limit
    running: int  #: runs of the function
    scarce: bool  #: no node has room for another instance, and the ready ones are busy
    parked: bool  #: waits until the clock is trusted
    next_token: float | None  #: when the rate allows the next start, by the time of the event loop; None: it does now
    slots: int  #: slots for asynchronous work, in total
    slot_free: bool  #: one of them is free
    slots_kept: int  #: free slots for asynchronous work that are for other projects
    memory: int  #: MiB that one more run takes
    memory_free: int  #: MiB
    alone: bool  #: an invocation that met crashes of the engine runs alone

    @property
    def full(self) -> bool:
        return self.limit >= 0 and self.running >= self.limit


class QueueStatistics(Struct, frozen=True, kw_only=True):
    """Numbers of the run queue, as health and metrics show them."""

    slots: int
    sync_slots: int  #: of ``slots``, those that asynchronous work leaves free
    memory_limit: int  #: MiB
    running: int
    running_sync: int
    memory: int  #: MiB that running invocations take
    waiting_in_memory: int
    window_bytes: int
    oldest_due_at: float | None  #: earliest due time among the first entries of all queues; None: no entry in memory
    functions: int  #: functions with a share


Listed = list[tuple[float, int, ProjectShare]]  #: heap of virtual time, number and project; only the top is current


class _ModeQueue:
    """Queues of all functions for synchronous or asynchronous work, and the orders of projects that can run next."""

    def __init__(self, index: int) -> None:
        self.index = index  #: in ``ProjectShare.orders``
        self.queues: defaultdict[int, FunctionQueue] = defaultdict(FunctionQueue)
        self.queued: set[int] = set()  #: functions in the orders of their projects
        self.idle: Listed = []  #: projects that run nothing, which are first
        self.busy: Listed = []
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
        projects: Projects | None = None,
    ) -> None:
        self._all = projects or Projects()
        self._other_slots = min(self._all.other_slots, (slots - sync_slots) // 2)
        self._other_memory = memory * self._other_slots // slots
        self._projects, self._unnamed = WeakValueDictionary[str, ProjectShare](), ProjectShare()
        self._slots = slots
        self._sync_slots = sync_slots
        self._memory = memory
        self.page_rows, self.page_size, self._all_size = window_rows, window_size, windows_size
        self._suspect_crashes = suspect_crashes
        self._shares: defaultdict[int, Share] = defaultdict(lambda: Share(project=self._unnamed))
        self._sync, self._async = _ModeQueue(0), _ModeQueue(1)
        self._running = self._active = 0  #: runs, and projects that have some
        self._virtual = 0.0
        self._used_memory = 0
        self._passed = 0  #: MiB of runs that started before the first invocation, because their project ran nothing
        self._blocked = False  #: in ``pop``: the first invocation does not fit
        self._held = 0  #: payload bytes in all asynchronous windows
        self._alone = False  #: a suspect invocation runs, so no asynchronous one may start
        self._low: set[int] = set()  #: functions whose window is low
        self._dropped: set[int] = set()
        self._rates, self.rated = Rates(), False  #: ``rated``: some function has a rate
        self.next_token = self._rates.next_token

    # --- shares of functions --------------------------------------------------------------------------------

    def configure(
        self, function_id: int, *, weight: float, limit: int, memory: int, concurrent_requests: int = 1
    ) -> None:
        """Set weight, limit of concurrent runs, and instance size of a function.

        ``memory`` is the MiB of an instance, ``concurrent_requests`` the requests that an instance serves at a time. A
        higher limit takes effect at the next ``pop``.
        """
        share = self._shares[function_id]
        if share.project is self._unnamed and (name := self._all.of(function_id)):
            share.project = self._projects.setdefault(name, ProjectShare())
        share.weight, share.limit, share.memory, share.concurrent_requests = weight, limit, memory, concurrent_requests
        self._requeue(function_id)

    def set_places(self, function_id: int, kind: Kind, places: int) -> None:
        """Let ``places`` further invocations of a function start, of one kind, in both modes; -1: any number."""
        if (share := self._shares.get(function_id)) is not None:
            share.places[kind] = places
            if places < 0:
                del share.places[kind]
            self._requeue(function_id)

    def waits(self, function_id: int, kind: Kind) -> bool:
        """Return whether invocations of one kind of a function wait, and are not paused."""
        share = self._shares.get(function_id)
        for mode_queue in (self._sync, self._async):
            queue = mode_queue.queues.get(function_id)
            if queue is None or (mode_queue is self._async and share is not None and share.paused):
                continue
            if queue.horizon is not None or any(entry.invocation.kind == kind for entry in queue.entries()):
                return True
        return False

    def expect(self, function_id: int) -> None:
        """Note that invocations of the function wait on disk, so that ``needs_refill`` returns the function."""
        self._async.queues[function_id].horizon = BEGINNING
        self._low.add(function_id)

    # --- in and out -----------------------------------------------------------------------------------------

    def push(self, entry: Entry) -> bool:
        """Add an entry. Return False if it is only on disk, so that nothing else can start now."""
        function_id, mode_queue = entry.invocation.function_id, self._mode_queue(entry.invocation.mode)
        queue = mode_queue.queues[function_id]
        before = queue.size
        if not queue.offer(entry):
            return False
        if mode_queue is self._async:
            self._held += queue.size - before
            self._bound(queue)
        self._enqueue(mode_queue, function_id)
        return True

    def pop(self, *, asynchronous: bool = True, take: bool = True, now: float = 0.0) -> Entry | None:
        """Remove the next entry to run from its queue, and take a slot and memory for it.

        Return None if no entry may start now. If ``asynchronous`` is False, only synchronous calls may start. Without
        ``take``, only return the entry. ``now`` is the time in seconds, by a clock that cannot be set. Only functions
        with a rate need it.
        """
        if self._running >= self._slots:
            return None
        self._blocked = False
        entry = self._choose(self._sync, take) if self._sync.idle or self._sync.busy else None
        if entry is None and asynchronous and (self._async.idle or self._async.busy):
            entry = self._choose(self._async, take, now)  # calls that do not fit yet stay first
        return entry

    def release(self, entry: Entry, seconds: float) -> None:
        """Free the slot and memory that ``pop`` took for an entry. ``seconds`` is the duration of the run."""
        invocation = entry.invocation
        share = self._shares[invocation.function_id]
        self._used_memory -= share.end(entry, seconds)
        self._passed -= entry.passed
        self._mode_queue(invocation.mode).running -= 1
        self._running -= 1
        if self._suspect(invocation):
            self._alone = False
        self._requeue(invocation.function_id)
        if not share.project.running:
            self._active -= 1
            for mode_queue in (self._sync, self._async):
                self._list(mode_queue, share.project)
        if invocation.function_id in self._dropped:
            self._clear(invocation.function_id)

    def refund(self, entry: Entry, seconds: float = 0.0) -> None:
        """Free slot, memory and token of an entry that has not run. Only the ``seconds`` in its slot are charged.

        The caller adds it again.
        """
        invocation = entry.invocation
        share = self._shares[invocation.function_id]
        share.virtual += (seconds - entry.seconds) / share.weight
        share.project.virtual += seconds - entry.seconds
        if share.rated and invocation.mode is Mode.ASYNC:
            share.spent = self._rates.refund(invocation.function_id)
        self.release(entry, entry.seconds)

    def remove(self, function_id: int, key: int) -> Entry | None:
        """Remove a waiting entry from memory and return it. Return None if no such entry is in memory."""
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
            if function_id in self._dropped:
                self._clear(function_id)
            elif self._shares[function_id].places:
                self._requeue(function_id)  # the next one may have a place
            return entry
        return None

    def park(self, function_id: int) -> None:
        """Let no asynchronous invocation of a function start until ``unpark``."""
        self._shares[function_id].parked = True

    def unpark(self) -> None:
        for share in self._shares.values():
            share.parked = False
        for function_id in self._async.queues:
            self._enqueue(self._async, function_id)

    def set_rate(self, function_id: int, rate: float, burst: int, now: float) -> None:
        """Let ``rate`` asynchronous invocations of a function start in a second, ``burst`` at once; 0: no limit."""
        share = self._shares[function_id]
        share.rated, share.spent = rate > 0, self._rates.set(function_id, rate, burst, now)
        self.rated = bool(self._rates)
        self._enqueue(self._async, function_id)

    def renew(self, now: float) -> None:
        """Let the functions start invocations whose rates allow it at ``now``."""
        for function_id in self._rates.renewed(now):
            self._shares[function_id].spent = False
            self._enqueue(self._async, function_id)

    def pause(self, function_id: int) -> None:
        """Let no asynchronous invocation of a function start until ``end_pause``. Drop its entries from memory."""
        self._shares[function_id].paused = True
        queue = self._async.queues[function_id]
        self._held -= queue.size
        queue.empty()
        self._low.discard(function_id)

    def end_pause(self, function_id: int) -> None:
        """Let asynchronous invocations of a function start again, which ``needs_refill`` lets the caller read."""
        self._shares[function_id].paused = False
        self.expect(function_id)

    def remove_calls(self, function_id: int) -> list[Entry]:
        """Remove all waiting synchronous calls of a function, and return them."""
        queue = self._sync.queues.pop(function_id, None)
        return queue.entries() if queue else []

    def drop(self, function_id: int) -> None:
        """Drop the asynchronous entries of a deleted function. Its invocations on disk are not read any more."""
        queue = self._async.queues.pop(function_id, None)
        if queue is not None:
            self._held -= queue.size
        self._low.discard(function_id)
        self.set_rate(function_id, 0.0, 1, 0.0)
        self._dropped.add(function_id)
        self._clear(function_id)

    # --- the window over the disk ---------------------------------------------------------------------------

    def needs_refill(self) -> tuple[int, tuple[float, int]] | None:
        """Return a function with few entries in its window, and the position after which to read a page from disk.

        Return None if no function needs a page. The caller must read the page and call ``refill`` or ``refill_failed``.
        """
        while self._low:
            function_id = self._low.pop()
            queue = self._async.queues.get(function_id)
            if (share := self._shares.get(function_id)) is not None and share.paused:
                continue
            if queue is not None and queue.horizon is not None and not queue.loading:
                queue.loading = True
                return function_id, queue.horizon
        return None

    @property
    def is_low(self) -> bool:
        return bool(self._low)

    def refill(self, function_id: int, page: list[Entry], *, complete: bool) -> None:
        queue = self._async.queues[function_id]
        before = queue.size
        queue.refill(page, complete)
        self._held += queue.size - before
        self._bound(queue)
        self._note_level(function_id)
        self._enqueue(self._async, function_id)

    def refill_failed(self, function_id: int) -> None:
        """End a refill whose page could not be read, so that ``needs_refill`` returns the function again."""
        self._async.queues[function_id].refill((), complete=False)
        self._low.add(function_id)

    def running(self, function_id: int) -> int:
        """Return the number of invocations of a function that run now, including synchronous calls."""
        share = self._shares.get(function_id)
        return share.running if share else 0

    def obstacles(self, function_id: int) -> Obstacles:
        """Return the capacity that there is for a function now."""
        share = self._shares.get(function_id) or Share(project=self._unnamed)
        shared = share.sharing < share.concurrent_requests * len(share.grants)  # an instance can serve one more
        need = share.memory if self._running and not shared else 0
        idle, kept = not share.project.running, self._other_memory if self._kept_slots() else 0
        return Obstacles(
            limit=share.limit,
            running=share.running,
            scarce=min(share.places.values(), default=1) <= 0,
            parked=share.parked,
            next_token=self._rates.next_token(function_id),
            slots=self._slots - self._sync_slots,
            slot_free=self._slot_free(self._async, idle),
            slots_kept=0 if idle else min(self._kept_slots(), self._slots - self._sync_slots - self._running),
            memory=min(need, self._memory - kept),
            memory_free=self._memory - self._used_memory - (0 if idle else kept),
            alone=self._alone,
        )

    def oldest_due(self, function_id: int) -> float | None:
        """Return the due time of the first asynchronous entry of a function; None if no entry is in memory."""
        queue = self._async.queues.get(function_id)
        return queue.head().invocation.due_at if queue else None

    def statistics(self) -> QueueStatistics:
        queues = [
            queue for mode_queue in (self._sync, self._async) for queue in mode_queue.queues.values() if len(queue)
        ]
        due = [queue.head().invocation.due_at for queue in queues]
        return QueueStatistics(
            slots=self._slots,
            sync_slots=self._sync_slots,
            memory_limit=self._memory,
            running=self._running,
            running_sync=self._sync.running,
            memory=self._used_memory,
            waiting_in_memory=sum(len(queue) for queue in queues),
            window_bytes=self._held,
            oldest_due_at=min(due) if due else None,
            functions=len(self._shares),
        )

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, mode_queue: _ModeQueue, take: bool, now: float = 0.0) -> Entry | None:
        chosen = self._chosen(mode_queue, mode_queue.idle, idle=True) if mode_queue.idle else None
        if chosen is None and mode_queue.busy:
            chosen = self._chosen(mode_queue, mode_queue.busy, idle=False)
        if chosen is None:
            return None
        share, queue = chosen
        if not take:
            return queue.head()
        if share.rated and mode_queue is self._async:
            share.spent = self._rates.take(queue.head().invocation.function_id, now)
        return self._take(mode_queue, queue, share)

    def _chosen(self, mode_queue: _ModeQueue, projects: Listed, *, idle: bool) -> tuple[Share, FunctionQueue] | None:
        """Return share and queue of the function to start now, of ``idle`` projects, which run nothing, or of others.

        If the first one does not fit, only idle projects may start, and no function behind an invocation that must run
        alone. Functions and projects that cannot start are removed from the top of their orders.
        """
        skipped, chosen = None, None
        slot_free = self._slot_free(mode_queue, idle)
        while projects and slot_free:
            virtual, number, project = projects[0]
            order = project.orders[mode_queue.index]
            if virtual != project.virtual and len(projects) > 1:
                heapreplace(projects, (project.virtual, number, project))
            elif (project.running == 0) != idle or (first := self._first(mode_queue, order)) is None:
                heappop(projects)
                order.listed.discard(idle)
                self._list(mode_queue, project)
            elif self._fits(*first, idle):
                chosen = first
                break
            else:
                self._blocked = True
                if not (idle and self._all.several) or self._suspect(first[1].head().invocation):
                    break
                skipped = [*(skipped or ()), heappop(projects)]
        for listed in skipped or ():
            heappush(projects, listed)
        return chosen

    def _first(self, mode_queue: _ModeQueue, order: Order) -> tuple[Share, FunctionQueue] | None:
        """Return share and queue of the next function of a project that could start with free capacity."""
        while order.heap:
            virtual, function_id = order.heap[0]
            share, queue = self._shares.get(function_id), mode_queue.queues.get(function_id)
            if (
                share is None
                or not queue
                or share.full
                or (share.places and not share.has_place(queue.head().invocation))
                or ((share.parked or share.spent) and mode_queue is self._async)
            ):
                heappop(order.heap)
                mode_queue.queued.discard(function_id)
            elif virtual != share.virtual and len(order.heap) > 1:
                heapreplace(order.heap, (share.virtual, function_id))
            else:
                return share, queue
        return None

    def _kept_slots(self) -> int:
        """Return the number of free slots that are for projects that run nothing."""
        return max(0, min(self._other_slots, self._all.count - self._active)) if self._all.several else 0

    def _slot_free(self, mode_queue: _ModeQueue, idle: bool) -> bool:
        """Return whether a project that runs nothing (``idle``), or another one, may take a slot."""
        free = self._slots - self._running - (self._sync_slots if mode_queue is self._async else 0)
        if free > self._other_slots or not self._all.several:
            return free > 0
        if not idle:
            return free > self._kept_slots()
        # Calls that run are in slots of their own, so that they do not hold up the first run of another project.
        return free + (min(self._sync_slots, self._sync.running) if mode_queue is self._async else 0) > 0

    def _fits(self, share: Share, queue: FunctionQueue, idle: bool) -> bool:
        """Return True if memory suffices for the first invocation of a function, and no other work forbids its start.

        A free slot is assumed. An invocation that takes all asynchronous slots cannot start beside other asynchronous
        work.
        """
        invocation, several = queue.head().invocation, self._all.several
        kept = self._other_memory if several and self._kept_slots() else 0
        need = min(share.need(invocation), self._memory - kept)
        if self._running and self._used_memory + need > self._memory - (0 if idle else kept):
            return False
        if self._blocked and (not (idle and several) or self._passed + need > kept):
            return False
        if invocation.mode is Mode.SYNC:
            return True
        return not (self._alone or (self._suspect(invocation) and self._async.running))

    def _take(self, mode_queue: _ModeQueue, queue: FunctionQueue, share: Share) -> Entry:
        entry, project, busy = queue.pop(), share.project, mode_queue.busy
        invocation = entry.invocation
        # A project that runs nothing comes first, also if it is ahead of others that wait.
        self._virtual = min(project.virtual, busy[0][2].virtual) if busy else project.virtual
        project.present = share.virtual
        kept = self._other_memory if self._all.several and self._kept_slots() else 0
        taken = share.begin(entry, self._memory - kept)
        if share.places and invocation.kind in share.places:
            share.places[invocation.kind] -= 1
        self._used_memory += taken
        self._active += project.running == 1
        entry.passed = taken if self._blocked else 0
        self._passed += entry.passed
        mode_queue.running += 1
        self._running += 1
        if invocation.mode is Mode.ASYNC:
            self._held -= entry.size
            self._alone = self._suspect(invocation)
            self._note_level(invocation.function_id)
        return entry

    def _suspect(self, invocation: Invocation) -> bool:
        return invocation.crashes >= self._suspect_crashes

    # --- queues and their order -----------------------------------------------------------------------------

    def _mode_queue(self, mode: Mode) -> _ModeQueue:
        return self._async if mode is Mode.ASYNC else self._sync

    def _clear(self, function_id: int) -> None:
        """Remove all state of a dropped function when it has no runs and no waiting synchronous calls."""
        share = self._shares.get(function_id)
        if (share is None or not share.running) and not self._sync.queues.get(function_id):
            self._shares.pop(function_id, None)
            for mode_queue in (self._sync, self._async):
                mode_queue.queues.pop(function_id, None)

    def _requeue(self, function_id: int) -> None:
        self._enqueue(self._sync, function_id)
        self._enqueue(self._async, function_id)

    def _enqueue(self, mode_queue: _ModeQueue, function_id: int) -> None:
        """Add a function to the order of functions that can run next.

        Does nothing if the function is in this order already, has no entries, or has as many runs as its limit allows.
        """
        if not mode_queue.queues.get(function_id) or function_id in mode_queue.queued:
            return
        share = self._shares[function_id]
        full = share.full or (share.places and not share.has_place(mode_queue.queues[function_id].head().invocation))
        if not full and not ((share.parked or share.spent) and mode_queue is self._async):
            share.virtual = max(share.virtual, share.project.present)
            heappush(share.project.orders[mode_queue.index].heap, (share.virtual, function_id))
            mode_queue.queued.add(function_id)
            self._list(mode_queue, share.project)

    def _list(self, mode_queue: _ModeQueue, project: ProjectShare) -> None:
        """Add a project to the order of those that run nothing, or of the others, if functions of it can run next."""
        order, idle = project.orders[mode_queue.index], project.running == 0
        if not order.heap or idle in order.listed:
            return
        if not order.listed:
            project.virtual = max(project.virtual, self._virtual)
        heappush(mode_queue.idle if idle else mode_queue.busy, (project.virtual, project.number, project))
        order.listed.add(idle)

    def _bound(self, queue: FunctionQueue) -> None:
        before = queue.size
        if len(queue) > 2 * self.page_rows or before > 2 * self.page_size:
            queue.trim(self.page_rows, self.page_size)
        elif self._held > self._all_size and len(queue) > 1:
            queue.trim(len(queue) // 2, before // 2)
        self._held += queue.size - before

    def _note_level(self, function_id: int) -> None:
        queue = self._async.queues[function_id]
        low = len(queue) <= self.page_rows // 4 and queue.size <= self.page_size // 4
        if self._held > self._all_size:
            low = not queue  # further entries would be trimmed at once
        if low and queue.horizon is not None and not queue.loading:
            self._low.add(function_id)
