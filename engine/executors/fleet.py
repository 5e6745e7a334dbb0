"""Starts, dismissals and ends of all instances of the pool.

If a start fails in user code, another instance is started; at most ``TRIES`` instances are started for one request. To
free memory for a new instance, the instances idle for longest are dismissed. A request is never rejected for lack of
memory, because the scheduler has checked the capacity before: an instance is started even if the dismissals do not free
enough memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import anyio

from engine.errors import InvalidField
from engine.executors.allocator import Allocator, Start
from engine.executors.host import Host
from engine.executors.log_buffer import NOTHING, LogBuffer
from engine.executors.log_files import LogFiles
from engine.executors.outcomes import CANCELLED, START_FAILURES, Ended, launch_fault, runtime_fault, start_fault
from engine.executors.process import Call, End, Instance, Key
from engine.executors.reserve import Reserve, key_of
from engine.executors.shared_port import SharedPort
from engine.isolation.processes import MAX_WAIT
from engine.metrics.histogram import Histogram
from engine.model import Code, Function, Invocation
from engine.model.clock import Clock

TRIES = 3  #: most instances that one request starts, as on FunctionGraph


class Fleet:
    """Set of all instances of the pool. Starts the instances, dismisses them and handles their ends."""

    def __init__(self, host: Host, files: LogFiles, *, memory: int, idle: float, clock: Clock) -> None:
        self._host, self._files, self._limit, self._clock = host, files, memory, clock
        self.alive: set[Instance] = set()
        self.present: set[Instance] = set()  #: including instances that have ended but are not closed
        self.reserve = Reserve(self.alive)
        self.allocator = Allocator(idle, self.reserve.keeps)
        self._port = SharedPort(self.allocator.idle.__contains__)
        self.memory = 0  #: MiB granted to instances in ``alive``
        self.starting = self.started = self.retired = self.killed = 0
        self.cold_starts = Histogram()

    # --- starting -------------------------------------------------------------------------------------------

    async def command(self, function: Function, memory: int) -> list[str] | Ended:
        """Return the command that starts a worker of the function's runtime.

        Return the end of a failed request if the runtime cannot run on this machine. The first call for a runtime
        searches for its interpreter, which takes time.
        """
        try:
            return await self._host.interpreters.worker_command(function.runtime, memory)
        except InvalidField as problem:
            return Ended(runtime_fault(problem).answer, NOTHING)

    async def start(
        self, command: list[str], key: Key, function: Function, invocation: Invocation, on_call: Callable[[Call], None]
    ) -> Call | Ended:
        """Start an instance for a request that found none, and assign the request to it.

        Return the ``Call`` that stands for the start of the instance and contains the lines logged during the start. If
        no instance could be started, return the end of the request. ``on_call`` receives the ``Call`` of each attempted
        start, so that the caller can cancel the request.
        """
        log_buffer: LogBuffer | None = None
        tries = TRIES
        while True:
            tries -= 1
            begun = self._begin(command, key, function, assigned=1)
            if isinstance(begun, Ended):
                return begun
            call = Call(begun.instance, invocation, log_buffer)
            on_call(call)
            ended = await self._prepare(begun, call, function, command, last=tries == 0)
            if ended is None:
                return call
            if tries == 0 or ended.answer.code not in START_FAILURES:
                return ended
            log_buffer = call.log_buffer

    async def warm(self, function: Function) -> bool:
        """Start an instance without a request. Return False if the instance does not become ready."""
        command = await self.command(function, function.memory_size)
        if isinstance(command, Ended) or self.port_is_taken(function):
            return False
        begun = self._begin(command, key_of(function), function, assigned=0)
        if isinstance(begun, Ended):
            return False
        return await self._prepare(begun, Call(begun.instance, None), function, command, last=True) is None

    def port_is_taken(self, function: Function) -> bool:
        """Return whether the function needs the port that all HTTP functions share, and another instance uses it."""
        return self._host.shares_port(function) and not self._port.is_free

    async def free_port(self, command: list[str]) -> list[str] | Ended:
        """Wait until the port that all HTTP functions share is free, and return ``command`` unchanged.

        Return the end of a failed request if the instance that uses the port is not idle.
        """
        try:
            await self._port.free()
        except OSError as error:
            return Ended(launch_fault(error, command[0]).answer, NOTHING)
        return command

    def _begin(self, command: list[str], key: Key, function: Function, assigned: int) -> Start | Ended:
        memory = key[-1]
        while self._limit and self.memory + memory > self._limit and self.allocator.idle.dismiss_oldest():
            pass
        try:
            instance = self._host.spawn(command, function, memory, key, self)
        except OSError as error:
            return Ended(launch_fault(error, command[0]).answer, NOTHING)
        if self._host.shares_port(function):
            self._port.hold(instance)
        self.alive.add(instance)
        self.present.add(instance)
        self.memory += memory
        self.started += 1
        return self.allocator.begin(instance, assigned)

    async def _prepare(
        self, start: Start, call: Call, function: Function, command: list[str], *, last: bool
    ) -> Ended | None:
        """Wait until the starting instance is ready. Return None, or the end of the request if the start failed.

        Other requests that wait for this instance receive the failure only if no further start is attempted and the
        start was not cancelled. Otherwise they look for an instance again.
        """
        verdict: Ended | None = None
        began = self._clock.now()
        try:
            ended = await self._ready(call, function, command)
            if ended is None:
                self.cold_starts.observe(self._clock.now() - began)
            elif not call.cancelled and (last or ended.answer.code not in START_FAILURES):
                verdict = ended
            return ended
        finally:
            self.allocator.finish(start, verdict)

    async def _ready(self, call: Call, function: Function, command: list[str]) -> Ended | None:
        instance = call.instance
        self.starting += 1
        try:
            answer = await self._host.prepare(call, function)
        except OSError as error:
            instance.kill(End.UNFIT)
            return Ended(launch_fault(error, command[0]).answer, call.written())
        except BaseException:
            instance.kill(End.ABANDONED)
            raise
        finally:
            self.starting -= 1
        if answer is not None and answer.code == Code.OK and instance.end is None:
            return None
        instance.kill(End.UNFIT)
        if call.cancelled:
            answer = CANCELLED.answer
        elif answer is None or answer.code == Code.OK:  # the instance ended right after its answer
            answer = start_fault(instance, function).answer
        return Ended(answer, call.written())

    # --- ending ---------------------------------------------------------------------------------------------

    async def retire(self, function_id: int, keep: Collection[int]) -> None:
        """Dismiss those instances of the function whose revision is not in ``keep``.

        Idle instances are dismissed at once; the method waits at most ``MAX_WAIT`` seconds for their exit. Busy
        instances are dismissed when their requests have ended.
        """
        outdated = [one for one in self.alive if one.key[0] == function_id and one.key[2] not in keep]
        await _wait_all_closed([one for one in outdated if self.allocator.retire(one)])

    async def drain(self) -> None:
        """Dismiss all idle instances, which run their pre-stop handlers, and wait until the instances have exited."""
        self.reserve.want(())
        self.allocator.idle.close()
        for instance in [one for one in self.present if one.end is not None]:
            await instance.closed.wait()

    async def close(self) -> None:
        """Kill every instance, wait until all have exited, and remove their cgroups and temporary folders.

        Wait at most ``MAX_WAIT`` seconds for the exits, because a process may hang in the kernel.
        """
        self.allocator.idle.close()
        for instance in list(self.present):
            instance.kill(End.ABANDONED)
        await _wait_all_closed(self.present)
        await self._host.close()

    def instance_ended(self, instance: Instance) -> None:
        self.allocator.discard(instance)
        self.alive.discard(instance)
        self.memory -= instance.memory
        self.reserve.note_end(instance)
        if instance.end is End.RETIRED:
            self.retired += 1
        else:
            self.killed += 1

    def instance_closed(self, instance: Instance) -> None:
        self.present.discard(instance)
        self._host.clear(instance)
        if instance.log_buffer is not None:
            self._host.later(self._files.keep_instance, instance.key[0], instance.log_buffer.written())


async def _wait_all_closed(instances: Iterable[Instance]) -> None:
    with anyio.move_on_after(MAX_WAIT):  # a process that hangs in the kernel must not block the engine
        for instance in list(instances):
            await instance.closed.wait()
