"""Runs attempts in warm child processes.

The scheduler in front has chosen and counted: the pool refuses nothing. What it decides is which instance serves
(the one used last), and which idle ones go when memory for a new one is lacking (the ones unused for longest).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread
from msgspec import Struct

from engine.clock import Clock, SystemClock
from engine.errors import InvalidField
from engine.executors.host import Host, HostSettings
from engine.executors.idle import IdleInstances
from engine.executors.log_files import keep_log
from engine.executors.outcomes import CANCELLED, Fault, call_fault, launch_fault, runtime_fault, start_fault
from engine.executors.process import Call, End, Instance, Key
from engine.executors.reserve import Reserve, key_of
from engine.executors.shared_port import SharedPort
from engine.executors.transcript import NOTHING, Written
from engine.executors.walls import BARE, Walls, open_starter
from engine.frames import Answer
from engine.interpreters import Interpreters
from engine.isolation.detect import detect_isolation
from engine.isolation.leftovers import kill_leftovers
from engine.isolation.limits import Isolation
from engine.isolation.processes import PATIENCE
from engine.log_lines import TAIL, last
from engine.model import Code, CodePackage, Function, Invocation, Outcome
from engine.statistics import Distribution, Histogram


class Ended(NamedTuple):
    """What an attempt ended with."""

    answer: Answer
    written: Written


class PoolStatistics(Struct, frozen=True, kw_only=True):
    starting: int
    idle: int
    busy: int
    alive: int  #: of any state
    memory: int  #: MB granted to all instances
    started: int  #: since the beginning
    retired: int  #: dismissed by the pool
    killed: int  #: ended in any other way: died, timed out, cancelled
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
    processes: int = 1024,
    region: str = "local-1",
    clock: Clock | None = None,
    isolation: Isolation | None = None,
    interpreters: Interpreters | None = None,
    walls: Walls = BARE,
) -> AsyncIterator[Pool]:
    """A pool in which nothing of an earlier engine runs any more; when it is left, nothing of this one does.

    ``memory`` is MB for all instances together, 0 for no bound. ``marker`` names the data directory and with it
    whatever an engine on it has started: two living engines must not share one. Raises SettingsError if ``walls``
    ask for what this machine has not.
    """
    await to_thread.run_sync(kill_leftovers, marker, tmp)
    if isolation is None:
        isolation = await to_thread.run_sync(detect_isolation, marker)
    settings = HostSettings(
        code_path=code_path,
        tmp=tmp,
        marker=marker,
        region=region,
        log_size=log_size,
        processes=processes,
    )
    clock = clock or SystemClock()
    host = Host(
        settings,
        starter=await open_starter(walls, marker, tmp),
        isolation=isolation,
        interpreters=interpreters or Interpreters(),
        clock=clock,
    )
    pool = Pool(host, log_dir=log_dir, memory=memory, idle=idle, clock=clock)
    try:
        yield pool
    finally:
        with anyio.CancelScope(shield=True):
            await pool.close()


class Pool:
    """Satisfies ``engine.protocols.Executor``."""

    def __init__(self, host: Host, *, log_dir: Path, memory: int, idle: float, clock: Clock) -> None:
        self.interpreters = host.interpreters
        self.own_network = host.own_network  #: whether an HTTP function may have more than one instance
        self._host, self._log_dir, self._limit, self._clock = host, log_dir, memory, clock
        self._running: dict[int, Call] = {}
        self._seeking: set[int] = set()  #: invocations for whose runtime an interpreter is being looked for
        self._alive: set[Instance] = set()
        self.reserve = Reserve(self._alive)
        self._idle = IdleInstances(idle, Instance.dismiss, self.reserve.keeps)
        self._port = SharedPort(self._idle.__contains__)
        self._present: set[Instance] = set()  #: also those that are ended, but not gone
        self._memory = 0
        self._starting = self._started = self._retired = self._killed = 0
        self._cold_starts = Histogram()

    # --- the seam ---

    async def execute(self, function: Function, invocation: Invocation) -> Outcome:
        started_at = self._clock.now()
        memory = invocation.memory or function.memory_size
        key = (function.function_id, function.version, function.revision, memory)
        initialised = 0.0
        instance = self._idle.take(key)
        try:
            ended = await self._call(instance, function, invocation) if instance is not None else None
            if ended is None:
                started = await self._start(key, function, invocation)
                initialised = self._clock.now() - started_at
                if isinstance(started, Ended):
                    ended = started
                else:
                    ended = await self._call(started.instance, function, invocation, start=started)
        finally:
            self._running.pop(invocation.key, None)
        assert ended is not None
        if len(ended.written.kept) > TAIL or invocation.attempt > 1:
            await to_thread.run_sync(keep_log, self._log_dir, invocation.request_id, ended.written)
        return self._outcome(ended, started_at, initialised)

    def cancel(self, key: int) -> bool:
        if key in self._seeking:
            self._seeking.remove(key)
            return True
        call = self._running.get(key)
        return call is not None and call.cancel()

    async def retire(self, function_id: int, keep: Collection[int] = ()) -> None:
        dismissed = []
        for instance in [one for one in self._alive if _is_of(one, function_id, keep)]:
            if instance in self._idle:
                instance.dismiss()
                dismissed.append(instance)
            else:
                instance.obsolete = True
        await _all_gone(dismissed)

    async def warm(self, function: Function) -> bool:
        """Start an instance that waits for work; False if it cannot be made ready."""
        try:
            command = await self.interpreters.worker_command(function.runtime, function.memory_size)
            instance = await self._spawn(command, key_of(function), function)
            answer = await self._prepare(Call(instance, ""), function)
        except (OSError, InvalidField):
            return False
        if answer is not None and answer.code == Code.OK and instance.end is None and not instance.obsolete:
            self._idle.put(instance)
            return True
        instance.kill(End.UNFIT)
        return False

    # --- around it ---

    def statistics(self) -> PoolStatistics:
        idle = len(self._idle)
        return PoolStatistics(
            starting=self._starting,
            idle=idle,
            alive=len(self._alive),
            busy=max(0, len(self._alive) - idle - self._starting),
            memory=self._memory,
            started=self._started,
            retired=self._retired,
            killed=self._killed,
            cold_starts=self._cold_starts.snapshot(),
            isolation=self._host.isolation,
        )

    async def close(self) -> None:
        """End every instance, and return when they are gone and cleared away."""
        self._idle.close()
        for instance in list(self._present):
            instance.kill(End.ABANDONED)
        await _all_gone(list(self._present))
        await self._host.close()

    def instance_ended(self, instance: Instance) -> None:
        self._idle.discard(instance)
        self._alive.discard(instance)
        self._memory -= instance.memory
        self.reserve.note_end(instance)
        if instance.end is End.RETIRED:
            self._retired += 1
        else:
            self._killed += 1

    def instance_gone(self, instance: Instance) -> None:
        self._present.discard(instance)
        self._host.clear(instance)

    # --- within ---

    async def _call(
        self, instance: Instance, function: Function, invocation: Invocation, *, start: Call | None = None
    ) -> Ended | None:
        """One request to a ready instance. None: it was dead before it could read, so the function has not run."""
        call = Call(instance, invocation.request_id, start.transcript if start is not None else None)
        self._running[invocation.key] = call
        answer = await instance.invoke(call, invocation, function.timeout)
        if answer is None or instance.end is End.CANCELLED:
            if call.unread and start is None:
                return None
            return Ended(call_fault(instance, function).answer, call.written())
        if instance.obsolete:
            instance.dismiss()
        elif instance.end is None:
            self._idle.put(instance)
        return Ended(answer, call.written())

    async def _start(self, key: Key, function: Function, invocation: Invocation) -> Call | Ended:
        """What started an instance, or what the attempt ends with instead."""
        began = self._clock.now()
        command = await self._find_command(function, invocation)
        if isinstance(command, Fault):
            return Ended(command.answer, NOTHING)
        try:
            instance = await self._spawn(command, key, function)
            start = self._running[invocation.key] = Call(instance, invocation.request_id)
            answer = await self._prepare(start, function)
        except OSError as error:
            return Ended(launch_fault(error, command[0]).answer, NOTHING)
        if answer is not None and answer.code == Code.OK and instance.end is None:
            self._cold_starts.observe(self._clock.now() - began)
            return start
        instance.kill(End.UNFIT)
        return Ended(answer or start_fault(instance, function).answer, start.written())

    async def _find_command(self, function: Function, invocation: Invocation) -> list[str] | Fault:
        """What starts its worker; the first time this takes a while, in which it may be cancelled."""
        self._seeking.add(invocation.key)
        try:
            memory = invocation.memory or function.memory_size
            command = await self.interpreters.worker_command(function.runtime, memory)
        except InvalidField as problem:
            return runtime_fault(problem)
        finally:
            cancelled = invocation.key not in self._seeking
            self._seeking.discard(invocation.key)
        return CANCELLED if cancelled else command

    async def _spawn(self, command: list[str], key: Key, function: Function) -> Instance:
        memory = key[-1]
        shares_port = self._host.shares_port(function)
        if shares_port:
            await self._port.free()
        while self._limit and self._memory + memory > self._limit and self._idle.dismiss_oldest():
            pass
        instance = self._host.spawn(command, function, memory, key, self)
        if shares_port:
            self._port.hold(instance)
        self._alive.add(instance)
        self._present.add(instance)
        self._memory += memory
        self._started += 1
        return instance

    async def _prepare(self, start: Call, function: Function) -> Answer | None:
        self._starting += 1
        try:
            return await self._host.prepare(start, function)
        except OSError:
            start.instance.kill(End.UNFIT)
            raise
        except BaseException:
            start.instance.kill(End.ABANDONED)
            raise
        finally:
            self._starting -= 1

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


async def _all_gone(instances: list[Instance]) -> None:
    with anyio.move_on_after(PATIENCE):  # one that hangs in the kernel must not hold the engine
        for instance in instances:
            await instance.gone.wait()


def _is_of(instance: Instance, function_id: int, but_for: Collection[int]) -> bool:
    function, _, revision, _ = instance.key
    return function == function_id and revision not in but_for
