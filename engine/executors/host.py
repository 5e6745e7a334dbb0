"""Where instances come from and go to: their processes, limits and temporary folders.

What may block (making a cgroup can wait for the kernel, removing files is as long as the user made it) is done in
threads, those for new instances apart from those that clear away, so that neither waits for the other.
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
from engine.executors.spawn import Order, Place, environment, setup
from engine.executors.starter import Starter
from engine.isolation.limits import Enclosure, Isolation, Limits
from engine.isolation.orphans import remove_tree
from engine.isolation.ports import can_map_ports
from engine.model import CodePackage, Function
from engine.runtimes.catalog import Family, find_runtime
from engine.runtimes.interpreters import Interpreters
from engine.runtimes.protocol import Answer, setup_frame

_STARTERS, _CLEANERS = 2, 2  #: threads

Done = TypeVar("Done")


class HostSettings(Struct, frozen=True, kw_only=True):
    code_path: Callable[[CodePackage], Path]
    tmp: Path
    marker: str
    region: str
    processes: int


class Host:
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
        self._starters = ThreadPoolExecutor(_STARTERS, "functiond-start")
        self._cleaners = ThreadPoolExecutor(_CLEANERS, "functiond-clean")
        self._memory = MemoryWatch(isolation, self._cleaners)
        self._places: dict[Instance, Place] = {}

    @property
    def isolation(self) -> str:
        """What separates instances from the host, then what limits them."""
        return f"{self._starter.name}, {self._isolation.name}"

    @property
    def http_network(self) -> str:
        """How HTTP functions come to their port: ``own`` of each instance, ``mapped`` to a free one, or ``shared``."""
        if self._starter.own_network:
            return "own"
        return "mapped" if self._maps_ports else "shared"

    def shares_port(self, function: Function) -> bool:
        """Whether its server listens where those of other instances do."""
        return self.http_network == "shared" and _serves_http(function)

    def spawn(self, command: list[str], function: Function, memory: int, key: Key, owner: Owner) -> Instance:
        """A new process that waits to be prepared: ``command`` starts its worker. Raises OSError."""
        place = self._place(function, memory)
        seen = self._starter.seen(place)
        order = Order(command, environment(function, seen), seen.code, seen.layers)
        spawned = self._starter.start(key[:3], place, order)
        try:
            instance = Instance(spawned, key=key, function=function, owner=owner, recorder=self._recorder)
        except BaseException:
            spawned.destroy()
            self._starter.ended(key[:3])
            self._cleaners.submit(remove_tree, place.tmp)
            raise
        self._places[instance] = place
        return instance

    async def prepare(self, start: Call, function: Function) -> Answer | None:
        """Limits first, then user code: load it and run its initializer. None if the instance ended. Raises OSError."""
        instance = start.instance
        answer = await self._prepare(start, function)
        if answer is None and instance.end is End.DIED:
            await instance.gone.wait()  # now it is known how
            if instance.failure is not None:
                raise instance.failure
        return answer

    async def _prepare(self, start: Call, function: Function) -> Answer | None:
        instance = start.instance
        place = self._places[instance]
        limits = Limits(
            memory=instance.memory,
            processes=self._settings.processes,
            enters=instance.waits,
            tmp=self._starter.tmp,
            address_space=_family(function) is Family.PYTHON,
        )
        instance.enclosing = self._starters.submit(_attempt, self._isolation.enclose, place.instance_id, limits)
        await instance.connect()
        await instance.spawned()
        # Shielded: the thread goes on in any case, and what it made is removed in ``clear``.
        enclosure = await asyncio.shield(asyncio.wrap_future(instance.enclosing))
        if isinstance(enclosure, OSError):
            raise enclosure
        instance.enclosure = enclosure
        if instance.end is not None:  # and by now it may even be cleared away
            return None
        problem = await self._admit(instance, enclosure)
        if instance.end is not None:
            return None
        if problem is not None and not isinstance(problem, ProcessLookupError):
            raise problem
        if problem is not None or (instance.waits and not instance.enter_cgroup(enclosure.cgroup_fds())):
            await instance.gone.wait()  # it ended by itself, and its end says why
            return None
        self._memory.add(instance, enclosure)
        timeout = function.initializer_timeout if function.initializer_handler else function.timeout
        return await instance.request(start, setup_frame(setup(function, self._starter.seen(place))), timeout)

    async def _admit(self, instance: Instance, enclosure: Enclosure) -> OSError | None:
        if instance.waits:
            return _attempt(enclosure.admit, instance.pid)
        admitting = self._starters.submit(_attempt, enclosure.admit, instance.pid)
        return await asyncio.shield(asyncio.wrap_future(admitting))

    def clear(self, instance: Instance) -> None:
        """The instance is gone: remove what it left, in the background."""
        self._memory.discard(instance)
        self._starter.ended(instance.key[:3])
        self._cleaners.submit(_clear, instance.enclosing, self._places.pop(instance).tmp)

    def later(self, task: Callable[..., None], *arguments: object) -> None:
        """Do it in the background; ``close`` waits for it."""
        self._cleaners.submit(task, *arguments)

    async def close(self) -> None:
        """Returns when all is cleared."""
        self._memory.close()
        await self._starter.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._starters.shutdown()
        self._cleaners.shutdown()
        self._isolation.close()

    def _place(self, function: Function, memory: int) -> Place:
        instance_id = uuid.uuid4().hex
        return Place(
            instance_id=instance_id,
            marker=self._settings.marker,
            region=self._settings.region,
            code=self._settings.code_path(function.code).absolute(),  # a child has another working folder
            tmp=self._settings.tmp.absolute() / instance_id[:12],  # a socket's path has 107 bytes
            memory=memory,
            layers=tuple(self._settings.code_path(one.code).absolute() for one in function.dependencies),
            own_network=self.http_network == "own" and _serves_http(function),
            maps_port=self.http_network == "mapped" and _serves_http(function),
        )


def _serves_http(function: Function) -> bool:
    """Then its instances all listen on the same port."""
    return _family(function) is Family.HTTP


def _family(function: Function) -> Family | None:
    runtime = find_runtime(function.runtime)
    return runtime.family if runtime is not None else None


def _attempt(task: Callable[..., Done], *arguments: object) -> Done | OSError:
    """Errors are given, not raised: the call that it is for may have been cancelled meanwhile."""
    try:
        return task(*arguments)
    except OSError as error:
        return error


def _clear(enclosing: Future[Enclosure | OSError] | None, tmp: Path) -> None:
    enclosure = enclosing.result() if enclosing is not None and not enclosing.cancelled() else None
    if enclosure is not None and not isinstance(enclosure, OSError):
        enclosure.remove()
    remove_tree(tmp)
