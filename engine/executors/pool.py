"""Execution of attempts in instances, which are kept for further requests.

The scheduler chooses invocations and checks the capacity before; the pool rejects none. The allocator assigns each call
to an instance. The pool sends the request to the instance, and converts the end of the attempt to an Outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from msgspec import Struct

from engine.executors.allocator import TRIES, Allocator
from engine.executors.call import Call, End, Ended, State, key_of
from engine.executors.instance import Instance
from engine.executors.launcher import Launcher
from engine.executors.local.launcher import LocalOptions, open_launcher
from engine.executors.logs import LogFiles, LogRecorder
from engine.executors.outcomes import CANCELLED, call_fault, collateral_fault, interrupted_fault
from engine.executors.run_errors import RunErrors
from engine.isolation.limits import Isolation
from engine.logs.feed import LogBoard
from engine.logs.lines import TAIL, last
from engine.metrics.histogram import Distribution
from engine.model import Begin, Code, CodePackage, Function, Invocation, Mode, Outcome
from engine.model.clock import Clock, SystemClock
from engine.model.controls import Controls
from engine.runtimes.interpreters import Interpreters

if TYPE_CHECKING:  # not loaded without nodes
    from engine.executors.nodes.launcher import NodeLauncher
    from engine.executors.nodes.options import NodesOptions

_NO_CONTROLS = Controls()
MAX_TRACKED = 10_000  #: invocations whose collateral ends are counted


class PoolOptions(LocalOptions, frozen=True, kw_only=True):
    """Settings of a pool, and of its instances."""

    log_dir: Path
    memory: int = 0  #: MiB of all instances together; 0: no limit
    idle: float = 300.0  #: seconds after which an instance without work is dismissed
    log_size: int = 1 << 20  #: newest bytes kept of each log
    log_space: int = 1 << 30  #: bytes of all log files together
    nodes: NodesOptions | None = None  #: None: all instances run on this machine


class PoolStatistics(Struct, frozen=True, kw_only=True):
    """Numbers of instances and starts of the pool, for metrics."""

    starting: int
    idle: int
    busy: int
    alive: int  #: in any state
    memory: int  #: MiB granted to all instances
    started: int  #: since the engine's start
    retired: int  #: dismissed by the pool
    recycled: dict[str, int]  #: dismissed by the controls of their function, by cause; counted in ``retired``, too
    killed: int  #: ended otherwise: exited, timed out, cancelled
    cold_starts: Distribution  #: seconds until an instance was ready


@asynccontextmanager
async def open_pool(
    options: PoolOptions,
    *,
    code_path: Callable[[CodePackage], Path],
    check_code: Callable[[CodePackage], Awaitable[None]] | None = None,
    board: LogBoard | None = None,
    clock: Clock | None = None,
    interpreters: Interpreters | None = None,
    isolation: Isolation | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool of instances on this machine. On exit, kill every process of the pool.

    ``board`` publishes all log lines to its listeners. See ``open_launcher`` for the others, and for errors.
    """
    clock = clock or SystemClock()
    files = LogFiles(options.log_dir, options.log_space)
    recorder = LogRecorder(files, limit=options.log_size, clock=clock, board=board or LogBoard())
    local = await open_launcher(
        options,
        code_path=code_path,
        check_code=check_code,
        interpreters=interpreters,
        recorder=recorder,
        isolation=isolation,
    )
    if options.nodes is None:
        allocator = Allocator(local, memory=options.memory, idle=options.idle, clock=clock)
        pool = Pool(local, allocator, recorder, files, clock)
    else:
        from engine.executors.nodes.launcher import NodeLauncher

        package_file, memory = partial(_package_file, code_path), options.memory
        launcher = NodeLauncher(
            local, options.nodes, options, package_file=package_file, recorder=recorder, memory=memory
        )
        allocator = Allocator(launcher, memory=0, idle=options.idle, clock=clock)  # each instance has a grant
        launcher.make_room, allocator.idle.on_put = allocator.make_room, launcher.note_idle
        pool = Pool(launcher, allocator, recorder, files, clock, launcher)
    try:
        yield pool
    finally:
        with anyio.CancelScope(shield=True):
            await pool.close()


def _package_file(code_path: Callable[[CodePackage], Path], sha256: str) -> Path:
    """Return the path of a package as it was received."""
    return Path(f"{code_path(CodePackage(sha256=sha256, digest='', size=0))}.package")


class Pool:
    """Executor that runs attempts in instances (protocol ``engine.protocols.Executor``)."""

    def __init__(
        self,
        launcher: Launcher,
        allocator: Allocator,
        recorder: LogRecorder,
        files: LogFiles,
        clock: Clock,
        nodes: NodeLauncher | None = None,
    ) -> None:
        """Create a pool. ``nodes`` is None if all instances run on this machine."""
        self.allocator, self.reserve, self.files = allocator, allocator.reserve, files
        self.warm, self.retire, self.drain = allocator.warm, allocator.retire, allocator.drain
        self.capacity = allocator.capacity
        self.controls_of: Callable[[int], Controls] = lambda function_id: _NO_CONTROLS  #: set when the engine is wired
        self.retries_of: Callable[[Invocation], int] = lambda invocation: 0  #: the same
        self.walls, self.check_runtime = launcher.walls, launcher.check_runtime
        self.interpreters = launcher.interpreters
        self.function_uids, self.function_of = launcher.function_uids, launcher.function_of
        self.nodes = nodes
        self._launcher, self._recorder, self._clock = launcher, recorder, clock
        self._errors = RunErrors(recorder)
        self._running: dict[int, Call] = {}
        self._collateral: dict[int, int] = {}  #: ends of instances during an invocation, by its key
        self._losses: dict[int, int] = {}  #: the same of lost nodes

    # --- Executor ---

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        started_at = self._clock.now()
        call = self._running[invocation.key] = Call(key_of(function, invocation.memory), function, invocation)
        try:
            ended = await self._run(call, invocation, begin)
        finally:
            del self._running[invocation.key]
        if ended.answer.code:
            ended = self._errors.note(function, invocation, call.instance.id if call.instance else "", ended)
        elif invocation.mode is Mode.SYNC and ended.written.kept:
            self._errors.keep(function.function_id, last(ended.written.kept, TAIL))
        # After a crash, there may be a file of the same attempt.
        if (len(ended.written.kept) > TAIL or invocation.crashes) and invocation.mode is Mode.ASYNC:
            file = (function.function_id, invocation.request_id, ended.written, invocation.attempt)
            await to_thread.run_sync(self.files.keep, *file)
        answer = ended.answer
        progress, note = call.progress or (None, "")
        # The history leaves out such a success, see ``Settlement.in_history``.
        instance = call.instance if answer.code or invocation.attempt > 1 or progress is not None else None
        return Outcome(
            code=Code.OK if answer.code == 0 else Code(answer.code),
            message=answer.message,
            result=answer.result,
            log=last(ended.written.kept, TAIL),
            started_at=started_at,
            ended_at=self._clock.now(),
            memory_used=answer.memory_used,
            initialised=call.initialised,
            progress=progress,
            note=note,
            instance="" if instance is None else instance.id,
            node=ended.lost if instance is None else instance.node,
            losses=_count(self._losses, invocation) if ended.lost else 0,
        )

    async def _run(self, call: Call, invocation: Invocation, begin: Begin | None) -> Ended:
        """Assign the call to an instance and send it the request. Return the end of the attempt.

        If the instance ended before it read the request, no user code ran. The call is then assigned again, but to at
        most ``TRIES`` instances that were started for it.
        """
        controls = self.controls_of(invocation.function_id)
        while True:
            instance = self.allocator.acquire(call) or await self.allocator.wait(call)
            if isinstance(instance, Ended):
                return instance
            try:
                if begin is not None and (stored := begin()) is not None:
                    await stored
                    if call.stopped is not None:
                        return Ended(CANCELLED, call.written())
                self.allocator.note_request(instance, controls)
                retries = self.retries_of(invocation) if invocation.mode is Mode.ASYNC else 0
                answer = await instance.invoke(call, invocation, call.function.timeout, controls.soft_timeout, retries)
                if answer is not None:
                    self.allocator.note_memory(instance, controls, answer.memory_used)
            finally:
                self.allocator.release(instance)
            if answer is not None:
                return Ended(answer, call.written())
            if not instance.left_unread(call) or call.stopped is not None or call.tries == TRIES:
                if instance.node and invocation.mode is Mode.ASYNC:
                    await call.end_confirmed(instance.end, instance.closed)
                return self._end(instance, call, invocation)

    def _end(self, instance: Instance, call: Call, invocation: Invocation) -> Ended:
        """Return the end of a request whose instance ended, possibly because of another request."""
        if call.stopped is not None:
            return Ended(interrupted_fault(call.stopped, call.function), call.written())
        lost = instance.node if instance.end is End.NODE_LOST else ""
        if lost or call.state is State.RESPONSIBLE:
            return Ended(call_fault(instance), call.written(), lost)
        fault = collateral_fault(instance, _count(self._collateral, invocation))
        if fault.code != Code.ENGINE:  # no retry by itself
            self._collateral.pop(invocation.key, None)
        return Ended(fault, call.written())

    def cancel(self, key: int) -> bool:
        running = self._running.get(key)
        return running is not None and running.cancel()

    def find_run(self, key: int, instance: str) -> Invocation | None:
        """Return an invocation if it runs in the instance with this id, and its handler has not answered."""
        call = self._running.get(key)
        runs = call is not None and call.pending and call.instance is not None and call.instance.id == instance
        return call.invocation if call is not None and runs else None

    # --- progress and logs ---

    def progress(self, key: int) -> tuple[float, str] | None:
        """Return the fraction and the note that a running invocation has reported last, if it has.

        They are in memory only until the attempt is settled, and lost when the engine crashes.
        """
        running = self._running.get(key)
        return None if running is None else running.progress

    def running_log(self, key: int, attempt: int | None = None) -> bytes | None:
        """Return what an attempt has written up to now, in the format of ``engine.logs.lines``.

        Return None if the invocation, or the attempt with this number, is not running.
        """
        running = self._running.get(key)
        if running is None or running.invocation is None or attempt not in (None, running.invocation.attempt):
            return None
        return running.written().whole()

    async def log(self, function_id: int, request_id: str, attempt: int) -> bytes | None:
        """Return the log of an ended attempt. Return None if only the tail stored in the journal exists."""
        return await to_thread.run_sync(self.files.read, function_id, request_id, attempt)

    async def instance_log(self, function_id: int) -> bytes:
        """Return recent lines of a function that belong to no stored invocation.

        Instances wrote them while they served no request, or they are the ends of the logs of synchronous calls.
        """
        living = [instance.log_buffer for instance in self.allocator.present if instance.key[0] == function_id]
        now = b"".join(log_buffer.written().whole() for log_buffer in living if log_buffer is not None)
        now += self._errors.lines(function_id)
        return await to_thread.run_sync(self.files.read_instances, function_id) + now

    # --- management ---

    def alive(self, functions: Collection[int]) -> int:
        """Return the number of instances of the given functions."""
        return sum(instance.key[0] in functions for instance in self.allocator.alive)

    def statistics(self) -> PoolStatistics:
        allocator, idle = self.allocator, len(self.allocator.idle)
        return PoolStatistics(
            starting=allocator.starting,
            idle=idle,
            alive=len(allocator.alive),
            busy=max(0, len(allocator.alive) - idle - allocator.starting),
            memory=allocator.memory,
            started=allocator.started,
            retired=allocator.retired,
            recycled=dict(allocator.recycled),
            killed=allocator.killed,
            cold_starts=allocator.cold_starts.snapshot(),
        )

    async def close(self) -> None:
        """Kill every instance, wait until all have exited, and remove their cgroups and temporary folders."""
        await self.allocator.close()
        await self._launcher.close()
        self._errors.flush()
        await to_thread.run_sync(self._recorder.close)


def _count(counts: dict[int, int], invocation: Invocation) -> int:
    """Count an event of an invocation, in bounded memory. Return how many there were, at least 1."""
    times = counts.pop(invocation.key, 0) + 1
    if invocation.mode is Mode.ASYNC:  # may be retried
        counts[invocation.key] = times
        while len(counts) > MAX_TRACKED:
            del counts[next(iter(counts))]
    return times
