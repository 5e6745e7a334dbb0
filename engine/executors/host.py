"""Processes, limits and temporary folders of instances.

Blocking work runs in threads: creating a cgroup can wait for the kernel, and removing files can take long if the
user created many. Starting and cleaning have separate threads, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from engine.executors.log_buffer import LogRecorder
from engine.executors.memory_watch import MemoryWatch
from engine.executors.process import Call, End, Instance, Key, Owner
from engine.executors.spawn import InstanceSpec, ProcessSpec, environment, setup
from engine.executors.starter import Starter
from engine.isolation.limits import Enclosure, Isolation, Limits
from engine.isolation.orphans import remove_tree
from engine.isolation.ports import can_map_ports
from engine.model import CodePackage, Function
from engine.runtimes.catalog import Family, find_runtime
from engine.runtimes.interpreters import Interpreters
from engine.runtimes.protocol import Answer, setup_frame

_START_THREADS, _CLEAN_THREADS = 2, 2  #: numbers of threads

Result = TypeVar("Result")


class HostSettings(Struct, frozen=True, kw_only=True):
    """Settings common to all instances."""

    code_path: Callable[[CodePackage], Path]
    tmp: Path
    marker: str
    region: str
    processes: int


class Host:
    """Factory of instances. Also removes the processes, cgroups and temporary folders of instances that have ended."""

    def __init__(
        self,
        settings: HostSettings,
        *,
        starter: Starter,
        isolation: Isolation,
        interpreters: Interpreters,
        recorder: LogRecorder,
    ) -> None:
        self.interpreters = interpreters
        self._settings, self._starter, self._isolation, self._recorder = settings, starter, isolation, recorder
        self._maps_ports = can_map_ports()
        self._starters = ThreadPoolExecutor(_START_THREADS, "functiond-start")
        self._cleaners = ThreadPoolExecutor(_CLEAN_THREADS, "functiond-clean")
        self._memory = MemoryWatch(isolation, self._cleaners)
        self._specs: dict[Instance, InstanceSpec] = {}

    @property
    def isolation(self) -> str:
        """Names of the sandbox and of the mechanism that limits instances, such as ``bubblewrap, cgroup v2``."""
        return f"{self._starter.name}, {self._isolation.name}"

    @property
    def http_network(self) -> str:
        """Network of HTTP functions' instances: ``own``, ``mapped`` or ``shared``.

        ``own``: each instance has a network of its own. ``mapped``: the port on which the function's server listens is
        mapped to a free port of the host. ``shared``: all instances listen on the same port of the host, so that one
        runs at a time.
        """
        if self._starter.own_network:
            return "own"
        return "mapped" if self._maps_ports else "shared"

    def shares_port(self, function: Function) -> bool:
        """Return whether instances of the function listen on the port that all HTTP functions share."""
        return self.http_network == "shared" and _serves_http(function)

    def spawn(self, command: list[str], function: Function, memory: int, key: Key, owner: Owner) -> Instance:
        """Start the process of an instance with the worker's ``command``.

        Raises OSError if the process cannot be started. The process loads no user code before ``prepare``.
        """
        spec = self._new_spec(function, memory)
        seen_inside = self._starter.seen_inside(spec)
        process = ProcessSpec(command, environment(function, seen_inside), seen_inside.code, seen_inside.layers)
        spawned = self._starter.start(key[:3], spec, process)
        try:
            instance = Instance(spawned, key=key, function=function, owner=owner, recorder=self._recorder)
        except BaseException:
            spawned.destroy()
            self._starter.ended(key[:3])
            self._cleaners.submit(remove_tree, spec.tmp)
            raise
        self._specs[instance] = spec
        return instance

    async def prepare(self, start: Call, function: Function) -> Answer | None:
        """Apply the limits, then have the worker load the user code and run the initializer.

        Return the worker's answer. Return None if the instance ended before it answered. Raises OSError if the limits
        cannot be applied or the process could not be started.
        """
        instance = start.instance
        answer = await self._prepare(start, function)
        if answer is None and instance.end is End.EXITED:
            await instance.closed.wait()  # sets the exit status
            if instance.failure is not None:
                raise instance.failure
        return answer

    async def _prepare(self, start: Call, function: Function) -> Answer | None:
        instance = start.instance
        spec = self._specs[instance]
        limits = Limits(
            memory=instance.memory,
            processes=self._settings.processes,
            enters=instance.waits,
            tmp=self._starter.tmp,
            address_space=_family(function) is Family.PYTHON,
        )
        instance.enclosing = self._starters.submit(_capture_error, self._isolation.enclose, spec.instance_id, limits)
        await instance.connect()
        await instance.spawned()
        # Shielded: the thread continues after a cancellation, and ``clear`` removes the enclosure.
        enclosure = await asyncio.shield(asyncio.wrap_future(instance.enclosing))
        if isinstance(enclosure, OSError):
            raise enclosure
        instance.enclosure = enclosure
        if instance.end is not None:  # its resources may be removed already
            return None
        problem = await self._admit(instance, enclosure)
        if instance.end is not None:
            return None
        if problem is not None and not isinstance(problem, ProcessLookupError):
            raise problem
        if problem is not None or (instance.waits and not instance.enter_cgroup(enclosure.cgroup_fds())):
            await instance.closed.wait()  # the process exited; its status is the reason
            return None
        self._memory.add(instance, enclosure)
        timeout = function.initializer_timeout if function.initializer_handler else function.timeout
        return await instance.request(start, setup_frame(setup(function, self._starter.seen_inside(spec))), timeout)

    async def _admit(self, instance: Instance, enclosure: Enclosure) -> OSError | None:
        if instance.waits:
            return _capture_error(enclosure.admit, instance.pid)
        admitting = self._starters.submit(_capture_error, enclosure.admit, instance.pid)
        return await asyncio.shield(asyncio.wrap_future(admitting))

    def clear(self, instance: Instance) -> None:
        """Remove the cgroup and the temporary folder of an instance that has ended, in a thread, without waiting."""
        self._memory.discard(instance)
        self._starter.ended(instance.key[:3])
        self._cleaners.submit(_clear, instance.enclosing, self._specs.pop(instance).tmp)

    def later(self, task: Callable[..., None], *arguments: object) -> None:
        """Run a blocking task in a thread; ``close`` waits for the task."""
        self._cleaners.submit(task, *arguments)

    async def close(self) -> None:
        """Wait until the cgroups and temporary folders of all instances are removed, then stop the threads."""
        self._memory.close()
        await self._starter.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._starters.shutdown()
        self._cleaners.shutdown()
        self._isolation.close()

    def _new_spec(self, function: Function, memory: int) -> InstanceSpec:
        instance_id = uuid.uuid4().hex
        return InstanceSpec(
            instance_id=instance_id,
            marker=self._settings.marker,
            region=self._settings.region,
            code=self._settings.code_path(function.code).absolute(),  # absolute: a child has another working folder
            tmp=self._settings.tmp.absolute() / instance_id[:12],  # short: the path of a socket has at most 107 bytes
            memory=memory,
            layers=tuple(self._settings.code_path(one.code).absolute() for one in function.dependencies),
            own_network=self.http_network == "own" and _serves_http(function),
            maps_port=self.http_network == "mapped" and _serves_http(function),
        )


def _serves_http(function: Function) -> bool:
    """Return whether the function is an HTTP function, whose instances listen on one fixed port."""
    return _family(function) is Family.HTTP


def _family(function: Function) -> Family | None:
    runtime = find_runtime(function.runtime)
    return runtime.family if runtime is not None else None


def _capture_error(task: Callable[..., Result], *arguments: object) -> Result | OSError:
    """Run a task and return the OSError that it raises, because a caller cancelled meanwhile would not receive it."""
    try:
        return task(*arguments)
    except OSError as error:
        return error


def _clear(enclosing: Future[Enclosure | OSError] | None, tmp: Path) -> None:
    """Remove the cgroup and the temporary folder of an instance, as soon as the cgroup has been created."""
    enclosure = enclosing.result() if enclosing is not None and not enclosing.cancelled() else None
    if enclosure is not None and not isinstance(enclosure, OSError):
        enclosure.remove()
    remove_tree(tmp)
