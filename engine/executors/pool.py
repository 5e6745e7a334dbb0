"""Execution of attempts in child processes that are kept for further requests.

The scheduler chooses invocations and checks the capacity before; the pool rejects none. The pool assigns each request
to an instance and converts the end of the attempt to an Outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio import to_thread
from msgspec import Struct

from engine.executors.allocator import Start, Wait
from engine.executors.fleet import Fleet
from engine.executors.host import Host, HostSettings
from engine.executors.log_buffer import NOTHING, LogRecorder
from engine.executors.log_files import LogFiles
from engine.executors.outcomes import CANCELLED, Ended, Fault, call_fault, collateral_fault
from engine.executors.process import Call, Instance, Key
from engine.executors.sandbox import NO_ISOLATION, IsolationOptions, open_starter
from engine.isolation.detect import detect_isolation
from engine.isolation.limits import Isolation
from engine.isolation.orphans import kill_orphans
from engine.logs.feed import LogBoard
from engine.logs.lines import TAIL, last
from engine.metrics.histogram import Distribution
from engine.model import Code, CodePackage, Function, Invocation, Mode, Outcome
from engine.model.clock import Clock, SystemClock
from engine.runtimes.interpreters import Interpreters

MAX_TRACKED = 10_000  #: invocations whose collateral ends are counted

log = structlog.get_logger("functiond")


class PoolStatistics(Struct, frozen=True, kw_only=True):
    """Numbers of instances and starts of the pool, for metrics."""

    starting: int
    idle: int
    busy: int
    alive: int  #: in any state
    memory: int  #: MiB granted to all instances
    started: int  #: since the engine's start
    retired: int  #: dismissed by the pool
    killed: int  #: ended otherwise: exited, timed out, cancelled
    cold_starts: Distribution  #: seconds until an instance was ready
    isolation: str


@asynccontextmanager
async def open_pool(
    *,
    code_path: Callable[[CodePackage], Path],
    tmp: Path,
    log_dir: Path,
    marker: str,
    memory: int = 0,
    idle: float = 300.0,
    log_size: int = 1 << 20,
    log_space: int = 1 << 30,
    board: LogBoard | None = None,
    processes: int = 1024,
    region: str = "local-1",
    clock: Clock | None = None,
    isolation: Isolation | None = None,
    interpreters: Interpreters | None = None,
    sandbox: IsolationOptions = NO_ISOLATION,
) -> AsyncIterator[Pool]:
    """Kill all processes that an earlier engine left running, and open a pool. On exit, kill every process of the pool.

    ``memory`` is the limit of all instances together in MiB; 0 means no limit. An instance without work is dismissed
    after ``idle`` seconds. Of each log, the newest ``log_size`` bytes are kept. All log files together may take
    ``log_space`` bytes. ``board`` publishes all log lines to its listeners. ``marker`` identifies the data directory
    and all processes started for it; two running engines must not use the same marker. Raises SettingsError if this
    machine lacks the isolation that ``sandbox`` demands.
    """
    await to_thread.run_sync(kill_orphans, marker, tmp)
    starter = await open_starter(sandbox, marker, tmp)
    if isolation is None:
        isolation = await to_thread.run_sync(detect_isolation, marker)
    settings = HostSettings(
        code_path=code_path,
        tmp=tmp,
        marker=marker,
        region=region,
        processes=processes,
    )
    clock = clock or SystemClock()
    host = Host(
        settings,
        starter=starter,
        isolation=isolation,
        interpreters=interpreters or Interpreters(),
        recorder=LogRecorder(limit=log_size, clock=clock, board=board or LogBoard()),
    )
    if sandbox is not NO_ISOLATION:
        log.info("isolation chosen", isolation=host.isolation, http_network=host.http_network)
    pool = Pool(host, files=LogFiles(log_dir, log_space), memory=memory, idle=idle, clock=clock)
    try:
        yield pool
    finally:
        with anyio.CancelScope(shield=True):
            await pool.close()


class Pool:
    """Executor that runs attempts in instances (protocol ``engine.protocols.Executor``)."""

    def __init__(self, host: Host, *, files: LogFiles, memory: int, idle: float, clock: Clock) -> None:
        self.interpreters = host.interpreters
        self.http_network = host.http_network
        self.isolation, self._clock, self.files = host.isolation, clock, files
        self.fleet = Fleet(host, files, memory=memory, idle=idle, clock=clock)
        self.reserve, self._allocator = self.fleet.reserve, self.fleet.allocator
        self._running: dict[int, Call | Wait] = {}
        self._collateral: dict[int, int] = {}  #: ends of instances during an invocation, by its key

    # --- Executor ---

    async def execute(self, function: Function, invocation: Invocation) -> Outcome:
        started_at = self._clock.now()
        memory = invocation.memory or function.memory_size
        key = (function.function_id, function.version, function.revision, memory)
        initialised = 0.0
        instance = self._allocator.acquire(key)
        try:
            ended = await self._call(instance, function, invocation) if instance is not None else None
            if ended is None:
                ended, initialised = await self._wait(key, function, invocation, started_at)
        finally:
            del self._running[invocation.key]
        if (len(ended.written.kept) > TAIL or invocation.attempt > 1) and invocation.mode is Mode.ASYNC:
            await to_thread.run_sync(self.files.keep, invocation.request_id, ended.written)
        return self._outcome(ended, started_at, initialised)

    def cancel(self, key: int) -> bool:
        running = self._running.get(key)
        return running is not None and running.cancel()

    async def log(self, key: int, request_id: str) -> bytes | None:
        """Return the log of an invocation in the format of ``engine.logs.lines``.

        Return None if there is no log file, and only the tail stored in the journal exists.
        """
        running = self._running.get(key)
        if isinstance(running, Call):
            return running.written().whole()
        return await to_thread.run_sync(self.files.read, request_id)

    async def instance_log(self, function_id: int) -> bytes:
        """Return recent lines that instances of a function wrote while they served no request."""
        living = [one.log_buffer for one in self.fleet.present if one.key[0] == function_id]
        now = b"".join(log_buffer.written().whole() for log_buffer in living if log_buffer is not None)
        return await to_thread.run_sync(self.files.read_instances, function_id) + now

    def alive(self, functions: Collection[int]) -> int:
        """Return the number of instances of the given functions."""
        return sum(instance.key[0] in functions for instance in self.fleet.alive)

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        await self.fleet.retire(function_id, keep)

    async def warm(self, function: Function) -> bool:
        """Start an instance without a request. Return False if the instance does not become ready."""
        return await self.fleet.warm(function)

    # --- management ---

    def statistics(self) -> PoolStatistics:
        fleet, idle = self.fleet, len(self._allocator.idle)
        return PoolStatistics(
            starting=fleet.starting,
            idle=idle,
            alive=len(fleet.alive),
            busy=max(0, len(fleet.alive) - idle - fleet.starting),
            memory=fleet.memory,
            started=fleet.started,
            retired=fleet.retired,
            killed=fleet.killed,
            cold_starts=fleet.cold_starts.snapshot(),
            isolation=self.isolation,
        )

    async def drain(self) -> None:
        """Dismiss all idle instances, which run their pre-stop handlers, and wait until the instances have exited.

        Call when no request runs.
        """
        await self.fleet.drain()

    async def close(self) -> None:
        """Kill every instance, wait until all have exited, and remove their cgroups and temporary folders."""
        await self.fleet.close()

    # --- internal ---

    async def _wait(self, key: Key, function: Function, invocation: Invocation, since: float) -> tuple[Ended, float]:
        """Run a request for which no instance was ready: wait for a starting instance, or start one.

        Return the end of the request, and the seconds that it waited for an instance.
        """
        command = await self._unless_cancelled(invocation, self.fleet.command(function, key[-1]))
        while not isinstance(command, Ended):
            instance = self._allocator.acquire(key)
            start: Call | None = None
            if instance is None and (joined := self._allocator.join_starting(key)) is not None:
                instance, verdict = joined[0].instance, await self._join(*joined, invocation)
                if verdict is not None:
                    return verdict, self._clock.now() - since
            elif instance is None and self.fleet.port_is_taken(function):
                command = await self._unless_cancelled(invocation, self.fleet.free_port(command))
                continue
            elif instance is None:
                begun = await self.fleet.start(
                    command, key, function, invocation, partial(self._running.__setitem__, invocation.key)
                )
                if isinstance(begun, Ended):
                    return begun, self._clock.now() - since
                instance, start = begun.instance, begun
            waited = self._clock.now() - since
            ended = await self._call(instance, function, invocation, start)
            if ended is not None:
                return ended, waited
        return command, 0.0

    async def _unless_cancelled(
        self, invocation: Invocation, command: Awaitable[list[str] | Ended]
    ) -> list[str] | Ended:
        """Await ``command`` and return its result.

        Return the end of the request if the request was cancelled meanwhile.
        """
        wait = self._running[invocation.key] = Wait()
        found = await command
        return Ended(CANCELLED.answer, NOTHING) if wait.cancelled else found

    async def _join(self, start: Start, wait: Wait, invocation: Invocation) -> Ended | None:
        """Wait for a starting instance. Return None if an instance may be ready now, or the end of the request."""
        self._running[invocation.key] = wait
        try:
            verdict = await wait.decided()
        except BaseException:
            self._allocator.release(start.instance)
            raise
        if verdict is not None:
            self._allocator.release(start.instance)
        return verdict

    async def _call(
        self, instance: Instance, function: Function, invocation: Invocation, start: Call | None = None
    ) -> Ended | None:
        """Send a request to its instance.

        ``start`` is the ``Call`` of the instance's start if it was started for this request. Return None if the
        instance ended before it read the request and was not started for it. The request has then run no user code and
        can run on another instance.
        """
        log_buffer = start.log_buffer if start is not None else None
        call = self._running[invocation.key] = Call(instance, invocation, log_buffer)
        try:
            answer = await instance.invoke(call, invocation, function.timeout)
        finally:
            self._allocator.release(instance)
        if answer is not None:
            return Ended(answer, call.written())
        if call.unread and start is None and not call.cancelled:
            return None
        fault = call_fault(call, function) if call.responsible else self._collateral_fault(call, invocation)
        return Ended(fault.answer, call.written())

    def _collateral_fault(self, call: Call, invocation: Invocation) -> Fault:
        """Return code and message for a request whose instance ended, possibly because of another request."""
        times = self._collateral.pop(invocation.key, 0) + 1
        fault = collateral_fault(call, times)
        if fault.code == Code.ENGINE and invocation.mode is Mode.ASYNC:  # will be retried
            self._collateral[invocation.key] = times
            while len(self._collateral) > MAX_TRACKED:
                del self._collateral[next(iter(self._collateral))]
        return fault

    def _outcome(self, ended: Ended, started_at: float, initialised: float) -> Outcome:
        answer = ended.answer
        return Outcome(
            code=Code.OK if answer.code == 0 else Code(answer.code),
            message=answer.message,
            result=answer.result,
            log=last(ended.written.kept, TAIL),
            started_at=started_at,
            ended_at=self._clock.now(),
            memory_used=answer.memory_used,
            initialised=initialised,
        )
