"""Launchers, which start instances and release what an ended instance leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from engine.executors.call import Call, Key
from engine.executors.instance import Instance, InstanceOwner
from engine.isolation.gpus import Gpus
from engine.model import Function
from engine.runtimes.catalog import Family, family_of
from engine.runtimes.interpreters import InterpreterInfo
from engine.runtimes.protocol import Answer


class LaunchPlan(NamedTuple):
    """Instance that a launcher can start now."""

    key: Key
    function: Function
    command: Sequence[str]  #: starts the worker of the function's runtime
    instance: str  #: id of the instance
    where: Any = None  #: known to the launcher
    gpus: Gpus = Gpus()


class Launcher(Protocol):
    """Starter of instances, on this machine or on others.

    An instance is started in three steps: ``prepare``, ``launch``, ``load``. The caller does not await anything between
    the first two, and calls ``clear`` once for each launched instance.
    """

    @property
    def walls(self) -> Mapping[str, str]:
        """What separates and limits instances, as readiness tells it, such as ``{"network": "project"}``.

        ``isolation`` has the names of the mechanisms, such as ``bubblewrap, cgroup v2, seccomp``.
        ``http_network`` is ``own`` if each instance of an HTTP function has a network of its own, ``mapped`` if the
        port of its server is mapped to a free one, and ``unavailable`` if HTTP functions cannot run.
        """
        ...

    @property
    def function_uids(self) -> range:
        """User ids that belong to functions and to no other program of this machine, not even to the engine."""
        ...

    def function_of(self, instance_id: str) -> Function | None:
        """Return the function of an instance; None if there is no such instance, or it has ended."""
        ...

    async def check_runtime(self, runtime: str) -> None:
        """Raise InvalidField if no instance of this runtime can be started."""
        ...

    async def interpreters(self, runtime: str) -> list[InterpreterInfo]:
        """Return the interpreter of a runtime, for a ``bootstrap`` its ``python3``; all for an empty text.

        Raises InvalidField if no instance of this runtime can be started.
        """
        ...

    async def prepare(self, key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        """Wait until an instance can be started: its interpreter is known, and the network of its project is open.

        ``on_wait`` is called once if no node has room. The wait goes on then, until the caller cancels it.

        Raises InvalidField if the function's runtime cannot run, and OSError if something else is missing.
        """
        ...

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        """Start the process of an instance, which loads no user code before ``load``.

        Raises OSError if the process cannot be started.
        """
        ...

    async def load(self, instance: Instance, start: Call) -> Answer | None:
        """Apply the limits, then have the worker load the user code and run the initializer.

        Return the worker's answer. Return None if the instance ended before it answered. Raises OSError if the limits
        cannot be applied or the process could not be started.
        """
        ...

    def clear(self, instance: Instance) -> None:
        """Release what a closed instance leaves behind, such as its temporary folder. Does not wait."""
        ...

    async def close(self) -> None:
        """Wait until everything is released. Call when all instances are closed."""
        ...


def load_timeout(function: Function) -> int:
    """Return the seconds in which an instance must load the code and run the initializer."""
    # The bridge of an HTTP function ends sooner, and tells where the server listens.
    limit = function.initializer_timeout if function.initializer_handler else function.timeout
    return limit + (family_of(function.runtime) is Family.HTTP)
