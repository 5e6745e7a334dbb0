"""Instances on this node, each from ``Prepare`` to ``Gone``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, NamedTuple

import structlog
from anyio import to_thread

from engine.agent.packages import Packages
from engine.agent.relay import Outlet, Relay
from engine.errors import FunctiondError, InvalidField
from engine.executors.call import Call, End, key_of
from engine.executors.instance import Instance
from engine.executors.launcher import LaunchPlan
from engine.executors.local.launcher import LocalLauncher
from engine.executors.nodes.connection import Connection, ProtocolError
from engine.executors.nodes.messages import Gone, Prepare, Prepared, Problem, Start, send
from engine.executors.nodes.streams import Streams
from engine.isolation.gpus import find_gpus

log = structlog.get_logger("functiond.agent")


class Node(NamedTuple):
    """Parts of the agent that all instances use."""

    connection: Connection
    launcher: LocalLauncher
    packages: Packages
    outlet: Outlet
    streams: Streams
    starts: dict[str, Start]  #: by the id of an instance that starts
    hosted: dict[int, Hosted]  #: by number


class Hosted:
    """Instance with a number of the engine (protocol ``InstanceOwner``). Is among ``Node.hosted`` until its end."""

    def __init__(self, node: Node, asked: Prepare) -> None:
        self.number = asked.number
        self._node, self._function, self._asked = node, asked.function, asked
        self._plan: LaunchPlan | None = None
        self._relay: Relay | None = None
        node.hosted[self.number] = self
        node.packages.use(self._function)
        self._begin(self._prepare())

    def start(self, asked: Start) -> None:
        """Start the process of an instance that was prepared."""
        if self._plan is None or self._relay is not None:
            raise ProtocolError(f"it started instance {self.number}, which is not prepared")
        self._node.starts[asked.instance] = asked
        try:
            started = self._node.launcher.launch(self._plan._replace(instance=asked.instance), self)
        except Exception as error:
            self._end(Gone(number=self.number, problem=Problem.of(_os_error(error))))
            return
        finally:
            del self._node.starts[asked.instance]
        assert isinstance(started, Relay)
        self._relay = started
        self._begin(self._run(started, self._plan))

    def feed(self, frames: bytes) -> None:
        if self._relay is not None:
            self._relay.feed(frames)

    def kill(self) -> None:
        if self._relay is not None:
            self._relay.kill(End.RETIRED)
        else:
            self._task.cancel()
            self._end(Gone(number=self.number))

    # --- InstanceOwner ---

    def instance_suspect(self, instance: Instance) -> None:
        """Do nothing: no node is silent to itself."""

    def instance_ended(self, instance: Instance) -> None:
        """Do nothing: ``_run`` waits until the relay is closed."""

    instance_closed = instance_ended

    # --- internal ---

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(_check)

    async def _prepare(self) -> None:
        try:
            await self._node.packages.fetch(self._function)
            key = key_of(self._function, self._asked.memory)
            plan = await self._node.launcher.prepare(key, self._function, lambda: None)
            if gpus := self._asked.gpus:
                plan = plan._replace(gpus=await to_thread.run_sync(find_gpus, gpus))
        except Exception as error:
            problem = error if isinstance(error, InvalidField) else _os_error(error)
            self._end(Prepared(number=self.number, problem=Problem.of(problem)))
            return
        self._plan = plan
        send(self._node.connection, Prepared(number=self.number, command=plan.command[0]), self.number)

    async def _run(self, relay: Relay, plan: LaunchPlan) -> None:
        problem = None
        try:
            await self._node.launcher.load(relay, Call(plan.key, plan.function, None))
        except Exception as error:
            problem = Problem.of(_os_error(error))
            relay.kill(End.UNFIT)
        await relay.closed.wait()
        self._node.launcher.clear(relay)
        gone = Gone(
            number=self.number,
            status=relay.exit_status,
            out_of_memory=relay.out_of_memory,
            unread=relay.unread,
            received=relay.accepted,
            problem=problem,
        )
        self._end(gone)

    def _end(self, message: Gone | Prepared) -> None:
        send(self._node.connection, message, self.number)
        del self._node.hosted[self.number]
        self._node.packages.release(self._function)


def _os_error(error: Exception) -> OSError:
    """Return an error as the engine understands it. Log one that nobody expects."""
    if isinstance(error, OSError):
        return error
    if not isinstance(error, FunctiondError):
        log.error("instance failed", exc_info=error)
    return OSError(str(error) or type(error).__name__)


def _check(task: asyncio.Task[None]) -> None:
    """End the process after an error that the engine would wait for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("agent failed", exc_info=error)
        os._exit(1)
