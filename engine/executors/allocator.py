"""Allocation of calls to instances.

An instance is chosen in this order: a busy instance that can serve a further request at the same time, then an idle
one. If there is none, the call waits for the first instance of its key that can serve it: one that becomes free, or one
that is starting. An instance is started for a waiting call unless enough are starting already. A new instance serves
the call for which it was started before all others.

Busy instances are preferred, so that others become idle and can be dismissed. To free memory for a new instance, the
instances idle for longest are dismissed. A call is never rejected for lack of memory, because the scheduler has checked
the capacity before: an instance is started even if the dismissals do not free enough memory.

If no node has room, a start waits for capacity without its call. Calls that no other start will serve are *deferred*:
they return to the queue. As long as instances of their key serve calls or start, the queue then lets only so many calls
go on as ready instances serve and few further starts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

import anyio

from engine.errors import Deferred, InvalidField
from engine.executors.call import Call, End, Ended, Key, key_of
from engine.executors.idle import IdleInstances, Reserve
from engine.executors.instance import Instance
from engine.executors.launcher import Launcher
from engine.executors.outcomes import CANCELLED, START_FAILURES, launch_fault, runtime_fault, start_fault
from engine.isolation.processes import MAX_WAIT
from engine.metrics.histogram import Histogram
from engine.model import Code, Function
from engine.model.clock import Clock
from engine.model.controls import Controls
from engine.model.invocation import Kind
from engine.model.signal import Signal
from engine.runtimes.protocol import ITSELF

RECYCLE_CAUSES = (REQUESTS, MEMORY) = ("requests", "memory")
TRIES = 3  #: most instances that one start launches, as on FunctionGraph
MAX_SCARCE = 4  #: starts of one key that wait for capacity, or are under way after others have waited


class Allocator:
    """Ready and starting instances by ``Key`` (function, version, revision, memory), and the calls assigned to them.

    An instance serves at most ``concurrency`` calls at a time; its ``assigned`` counts the calls assigned to it. A
    caller to which an instance was assigned must call ``release`` afterwards. ``memory`` is the limit of all instances
    together in MiB; 0 means no limit. An instance without work is dismissed after ``idle`` seconds.

    ``capacity(function_id, kind, places)`` announces for how many further calls there are places, after calls of this
    kind have been deferred; -1: any number. ``kind`` is version and memory of their invocations. ``wanted`` returns
    whether calls of a kind wait in the queue.
    """

    def __init__(self, launcher: Launcher, *, memory: int, idle: float, clock: Clock) -> None:
        self.capacity: Signal[[int, Kind, int]] = Signal()
        self.wanted: Callable[[int, Kind], bool] = lambda function_id, kind: True  #: set when the engine is wired
        self._launcher, self._limit, self._clock = launcher, memory, clock
        self.alive: set[Instance] = set()
        self.present: set[Instance] = set()  #: including instances that have ended but are not closed
        self.reserve = Reserve(self.alive)
        self.idle = IdleInstances(idle, lambda instance: instance.dismiss(), self.reserve.keeps)
        self._open: dict[Key, dict[Instance, None]] = {}  #: busy, with spare concurrency
        self._waiting: dict[Key, WaitingCalls] = {}
        self._scarce: set[Start] = set()  #: starts that wait for capacity
        self._limited: dict[Key, Kind] = {}  #: keys whose places are announced, with the kinds of their calls
        self._changed: set[Key] = set()  #: of those that are to be announced in the next turn of the loop
        self._tasks: set[asyncio.Task[bool]] = set()
        self.memory = 0  #: MiB granted to instances in ``alive``
        self.starting = self.started = self.retired = self.killed = 0
        self.recycled = dict.fromkeys(RECYCLE_CAUSES, 0)
        self.cold_starts = Histogram()

    # --- assigning ------------------------------------------------------------------------------------------

    def acquire(self, call: Call) -> Instance | None:
        """Assign a call to a ready instance. Return None if no instance can serve a further call."""
        opened = self._open.get(call.key)
        instance = next(reversed(opened)) if opened else self.idle.take(call.key)
        if instance is not None:
            instance.assigned += 1
            if instance.concurrency > 1:
                self._update_open(instance)
            if self._limited:
                self._note_change(call.key)
        return instance

    async def wait(self, call: Call) -> Instance | Ended:
        """Assign a call to the first instance that can serve it, and start one unless enough are starting already.

        Return the end of the call if the call was cancelled, or if no instance could be started. Raises Deferred.
        """
        began = self._clock.now()
        waiting = self._waiting_for(call.key, call.function)
        assignment = waiting.add(call)
        if waiting.uncovered > 0:
            self._begin(waiting, Start(call.key, call.function, call))
        try:
            instance = await assignment
        except asyncio.CancelledError:
            call.stopped = End.CANCELLED
            raise
        finally:
            call.initialised += self._clock.now() - began
            waiting.discard(call)
            assigned = None if assignment.cancelled() or assignment.exception() else assignment.result()
            if call.stopped is not None and isinstance(assigned, Instance):  # cancelled since it was assigned
                self.release(assigned)
            self._drop_if_empty(call.key, waiting)
        if instance is None or call.stopped is not None:
            return Ended(CANCELLED, call.written())
        return instance

    def release(self, instance: Instance) -> None:
        """End the assignment of one call to the instance. Call also if the instance has ended."""
        instance.assigned -= 1
        if instance.ready and instance.end is None:
            self._offer(instance)
            if self._limited:
                self._note_change(instance.key)

    def _offer(self, instance: Instance, start: Start | None = None) -> None:
        """Assign waiting calls to an instance, then make its spare concurrency available, or dismiss it."""
        waiting = self._waiting.get(instance.key) if self._waiting and not instance.recycled else None
        if waiting is not None:
            waiting.serve(instance, start)
        if instance.concurrency > 1:
            self._update_open(instance)
        if instance.assigned == 0:
            if instance.obsolete:
                instance.dismiss()
            else:
                self.idle.put(instance)

    def _waiting_for(self, key: Key, function: Function) -> WaitingCalls:
        if key not in self._waiting:
            self._waiting[key] = WaitingCalls(function.concurrent_num)
        return self._waiting[key]

    def _drop_if_empty(self, key: Key, waiting: WaitingCalls) -> None:
        if not waiting and self._waiting.get(key) is waiting:
            del self._waiting[key]

    def note_request(self, instance: Instance, controls: Controls) -> None:
        """Recycle the instance after the request that is sent now, if it is the last that the controls allow."""
        instance.served += 1
        if controls.recycle_requests and instance.served >= controls.recycle_requests:
            self._recycle(instance, REQUESTS)

    def note_memory(self, instance: Instance, controls: Controls, used: int) -> None:
        """Recycle the instance if it has used more bytes of memory than the controls allow."""
        if controls.recycle_memory and used * 100 > controls.recycle_memory * (instance.memory << 20):
            self._recycle(instance, MEMORY)

    def _recycle(self, instance: Instance, cause: str) -> None:
        """Have an instance serve no further calls, and dismiss it when its calls are done. Call before ``release``.

        Calls that wait for an instance get others, which are starting already.
        """
        if not instance.recycled:
            self.instance_suspect(instance)
            self.recycled[cause] += 1

    def instance_suspect(self, instance: Instance) -> None:
        instance.obsolete = True
        if instance.ready:  # otherwise calls may wait for it, until it is ready or ends
            instance.recycled = True
            self._remove_open(instance)
            self._note_change(instance.key)

    # --- starting -------------------------------------------------------------------------------------------

    async def warm(self, function: Function) -> bool:
        """Start an instance without a call. Return False if it does not become ready, or waits for capacity."""
        key = key_of(function)
        start = Start(key, function)
        task = self._begin(self._waiting_for(key, function), start)
        await asyncio.wait([task, start.scarce], return_when=asyncio.FIRST_COMPLETED)
        return not start.scarce.done() and task.result()

    def _begin(self, waiting: WaitingCalls, start: Start) -> asyncio.Task[bool]:
        start.waiting, waiting.starts[start.call] = waiting, start
        start.task = asyncio.ensure_future(self._run(start))
        self._note_change(start.call.key)
        self._tasks.add(start.task)
        start.task.add_done_callback(self._tasks.discard)
        return start.task

    def make_room(self, suits: Callable[[Instance], bool]) -> bool:
        """End the starts that nothing wants any more, or else dismiss an idle instance. Return False if there is none.

        Of the instances that suit, the one idle for longest is dismissed.
        """
        reserved = {key_of(function) for function in self.reserve.shortage()}
        scarce = {start.call.key: start.kind for start in self._scarce if start.call.key not in reserved}
        unwanted = {key for key, kind in scarce.items() if not self.wanted(key[0], kind)}
        self._end_scarce(unwanted.__contains__)
        return bool(unwanted) or self.idle.dismiss_oldest(suits)

    def _end_scarce(self, ends: Callable[[Key], bool]) -> None:
        """End the starts of some keys that wait for capacity."""
        for start in [start for start in self._scarce if ends(start.call.key)]:
            self._scarce.remove(start)
            start.task.cancel()
            self._note_change(start.call.key)

    def _defer(self, start: Start) -> None:
        """Let a start wait for capacity without its call, and defer the calls that no other start will serve."""
        waiting, key = start.waiting, start.call.key
        if waiting.starts.pop(start.call, None) is None:
            return  # stopped meanwhile
        if not start.scarce.done():
            start.scarce.set_result(False)
        if sum(other.call.key == key for other in self._scarce) < MAX_SCARCE:
            self._scarce.add(start)
        else:
            start.task.cancel()
        self._limited[key] = start.kind
        self._announce(key)
        waiting.fail(start, Deferred())
        start.cause = None
        self._drop_if_empty(key, waiting)

    def _note_change(self, key: Key) -> None:
        """Announce the places of a key soon, if it is limited."""
        if key in self._limited and key not in self._changed:
            self._changed.add(key)
            asyncio.get_running_loop().call_soon(self._announce, key)

    def _announce(self, key: Key) -> None:
        """Announce the places of a key that is limited: end the limit if nothing of it runs, starts or waits."""
        self._changed.discard(key)
        if (kind := self._limited.get(key)) is None:
            return
        ready = [each for each in self.alive if each.key == key and each.ready and not each.obsolete]
        free = sum(instance.concurrency - instance.assigned for instance in ready)
        if not any(start.call.key == key for start in self._scarce):
            starts = len(self._waiting[key].starts) if key in self._waiting else 0
            if not starts and not any(instance.assigned for instance in ready):
                del self._limited[key]
            free += max(0, MAX_SCARCE - starts)
        self.capacity(key[0], kind, free if key in self._limited else -1)

    async def _run(self, start: Start) -> bool:
        """Launch an instance, up to ``TRIES`` times while a call needs it or nodes are lost with it.

        Then assign waiting calls, or end them. Return whether an instance is ready.
        """
        failure: Ended | Exception | None = None
        try:
            for _ in range(TRIES):
                failure = await self._launch(start)
                if failure is None or (
                    not failure.lost
                    and (failure.answer.code not in START_FAILURES or not start.waiting.need_each_start)
                ):
                    break
        except Exception as error:  # a bug
            failure = error
        waiting = start.waiting
        del waiting.starts[start.call]
        received = failure is not None and waiting.fail(start, failure)
        if failure is None and start.instance is not None:
            start.instance.ready, start.instance.obsolete = True, start.instance.obsolete or start.obsolete
            self._offer(start.instance, start)
        self._note_change(start.call.key)
        self._drop_if_empty(start.call.key, waiting)
        if isinstance(failure, Exception) and (start.cause is None or not received):  # otherwise the calls raise it
            raise failure
        return failure is None

    async def _launch(self, start: Start) -> Ended | None:
        """Launch an instance. Return None when the instance is ready, or the end of waiting calls if it failed."""
        call, command = start.call, start.call.function.runtime
        try:
            try:
                plan = await self._launcher.prepare(call.key, call.function, lambda: self._defer(start))
            finally:
                if start in self._scarce:
                    self._scarce.remove(start)
                    self._note_change(call.key)
                    start.waiting = self._waiting_for(call.key, call.function)
                    start.waiting.starts[call] = start
            command = plan.command[0]
            while self._limit and self.memory + call.key[-1] > self._limit and self.idle.dismiss_oldest():
                pass
            start.instance = instance = self._launcher.launch(plan, self)
        except InvalidField as problem:
            return Ended(runtime_fault(problem), call.written())
        except OSError as error:
            return Ended(launch_fault(error, command), call.written())
        self.alive.add(instance)
        self.present.add(instance)
        self.memory += instance.memory
        self.started += 1
        self.starting += 1
        try:
            return await self._load(instance, call, command)
        except BaseException:
            instance.kill(End.ABANDONED)
            raise
        finally:
            self.starting -= 1

    async def _load(self, instance: Instance, call: Call, command: str) -> Ended | None:
        began = self._clock.now()
        call.begin(instance, ITSELF)
        try:
            answer = await self._launcher.load(instance, call)
        except OSError as error:
            instance.kill(End.UNFIT)
            return Ended(launch_fault(error, command), call.written())
        if answer is not None and answer.code == Code.OK and instance.end is None:
            self.cold_starts.observe(self._clock.now() - began)
            return None
        instance.kill(End.UNFIT)
        if answer is None or answer.code == Code.OK:  # the instance ended right after its answer
            answer = start_fault(instance, call.function)
        if instance.node:  # no other start begins while this one may still run
            await instance.closed.wait()
        return Ended(answer, call.written(), instance.node if instance.end is End.NODE_LOST else "")

    # --- ending ---------------------------------------------------------------------------------------------

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        """Dismiss those instances of the function whose revision is not in ``keep``.

        Idle instances are dismissed at once; the method waits at most ``MAX_WAIT`` seconds for their exit. Busy and
        starting instances serve the calls that are assigned to them or wait for them, and are then dismissed.
        """

        def outdated(key: Key) -> bool:
            return key[0] == function_id and key[2] not in keep

        self._end_scarce(outdated)
        for start in (start for waiting in self._waiting.values() for start in waiting.starts.values()):
            start.obsolete = start.obsolete or outdated(start.call.key)
        idle = []
        for instance in [instance for instance in self.alive if outdated(instance.key)]:
            instance.obsolete = True
            self._remove_open(instance)
            if instance.idle:
                idle.append(instance)
                instance.dismiss()
        await _wait_all_closed(idle)

    async def drain(self) -> None:
        """Dismiss all idle instances, which run their pre-stop handlers, and wait until the instances have exited.

        Call when no request runs.
        """
        self.reserve.want(())
        self.idle.close()
        for instance in [instance for instance in self.present if instance.end is not None]:
            await instance.closed.wait()

    async def close(self) -> None:
        """Cancel the calls that wait, kill every instance, and wait until all have exited.

        Wait at most ``MAX_WAIT`` seconds for the exits, because a process may hang in the kernel.
        """
        self._scarce.clear()
        self.idle.close()
        for waiting in self._waiting.values():
            waiting.cancel()
        for task in self._tasks:
            task.cancel()
        for instance in list(self.present):
            instance.kill(End.ABANDONED)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _wait_all_closed(self.present)

    def instance_ended(self, instance: Instance) -> None:
        self.idle.discard(instance)
        self._remove_open(instance)
        self.alive.discard(instance)
        self.memory -= instance.memory
        self.reserve.note_end(instance)
        self._note_change(instance.key)
        if instance.end is End.RETIRED:
            self.retired += 1
        else:
            self.killed += 1

    def instance_closed(self, instance: Instance) -> None:
        self.present.discard(instance)
        self._launcher.clear(instance)

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


async def _wait_all_closed(instances: Iterable[Instance]) -> None:
    with anyio.move_on_after(MAX_WAIT):  # a process that hangs in the kernel must not block the engine
        for instance in list(instances):
            await instance.closed.wait()


class Start:
    """Start of one instance. If the user code fails, the start goes on with another process.

    ``cause`` is the call for which the start begins. None: the instance is wanted even if no call waits for it.
    """

    def __init__(self, key: Key, function: Function, cause: Call | None = None) -> None:
        self.cause = cause
        self.call = Call(key, function, None)  #: with the starting instance
        self.instance: Instance | None = None  #: None while the start is prepared
        self.obsolete = False  #: the instance is dismissed as soon as no call waits
        invocation = cause.invocation if cause is not None else None
        self.kind = (function.version, 0) if invocation is None else invocation.kind
        self.task: asyncio.Task[bool]
        self.waiting: WaitingCalls  #: served first when the instance is ready
        self.scarce: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  #: waits for capacity, or did
        if cause is not None:
            cause.enter_start(self.call)


class WaitingCalls:
    """Calls that wait for an instance of one key, and the starts under way for the key that have capacity.

    First come, first served, but a start serves or ends the call for which it began before all others. The lines that
    it has logged are then in the log of the first request of its instance.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency  #: of each instance
        self._calls: OrderedDict[Call, None] = OrderedDict()
        self.starts: dict[Call, Start] = {}  #: by the start's own call

    def __bool__(self) -> bool:
        return bool(self._calls or self.starts)

    @property
    def uncovered(self) -> int:
        """Number of waiting calls that the starting instances together cannot serve. Negative: spare concurrency."""
        return len(self._calls) - len(self.starts) * self._concurrency

    @property
    def need_each_start(self) -> bool:
        """True if some calls would have no instance with one start less."""
        return self.uncovered + self._concurrency > 0

    def add(self, call: Call) -> asyncio.Future[Instance | Ended | None]:
        """Add a call, and return the future of its instance.

        Its result is an instance, the end of the call if a start failed, or None if the call was cancelled.
        """
        self._calls[call] = None
        return call.wait()

    def discard(self, call: Call) -> None:
        """Remove a call that no longer waits, and stop its start, or all starts after the last call, if not needed.

        A start whose process exists goes on, unless the call was cancelled.
        """
        self._calls.pop(call, None)
        own = self.starts.get(call.started_by) if call.started_by is not None else None
        call.end_wait()
        if own is not None:
            self._stop_unneeded(own, started=call.stopped is not None)
        elif not self._calls:
            for start in list(self.starts.values()):
                self._stop_unneeded(start, started=call.stopped is not None)

    def _stop_unneeded(self, start: Start, *, started: bool) -> None:
        """Stop a start if no call needs it. If its process exists, stop it only if ``started`` is True."""
        needed = start.cause is None or self.need_each_start
        if not needed and (started or start.instance is None):
            del self.starts[start.call]
            start.task.cancel()

    def cancel(self) -> None:
        """Cancel the wait of all calls, like the cancellation of their tasks."""
        for call in self._calls:
            call.future.cancel()

    def serve(self, instance: Instance, start: Start | None = None) -> None:
        """Assign calls to the instance, as many as it can serve.

        ``start`` is given if the instance has just become ready.
        """
        while self._calls and instance.assigned < instance.concurrency:
            call = self._next(start)
            if self._settle(call, instance):
                instance.assigned += 1
                call.tries += start is not None

    def fail(self, start: Start, reason: Ended | Exception) -> bool:
        """End the calls that no other start serves. Return False if there are none."""
        ended = False
        while self.uncovered > 0:
            ended = self._settle(self._next(start), reason) or ended
        return ended

    def _next(self, start: Start | None) -> Call:
        """Return the call for which the start began, or else the one that has waited for longest."""
        cause = start.cause if start is not None else None
        return cause if cause is not None and cause in self._calls else next(iter(self._calls))

    def _settle(self, call: Call, result: Instance | Ended | Exception) -> bool:
        """Set the result of a call's wait. Return False if the call was cancelled before."""
        del self._calls[call]
        if call.future.done():
            return False
        if isinstance(result, Exception):
            call.future.set_exception(result)
        else:
            call.future.set_result(result)
        return True
