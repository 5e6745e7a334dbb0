"""Node: an agent from its admission until the node is fenced, with its lease and its instances.

    joining ──▶ ready ◀──▶ silent ──▶ fenced
                  └──▶ draining ─────────┘

A node is *silent* when two pings are missing, or its connection has ended. It then gets no new work, and its idle
instances end. It is *fenced* when certainly nothing of it runs any more: the lease that the engine granted with its
last answer is over, or the supervisor of the node has reported that all is dead. Only then do its busy instances end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from msgspec import convert
from msgspec.structs import replace

from engine.executors.call import End
from engine.executors.nodes import messages
from engine.executors.nodes.connection import FRAMES, STDERR, STDOUT, STREAM, Connection, ProtocolError
from engine.executors.nodes.messages import Gone, Joined, Ping, Prepared, Unfit
from engine.executors.nodes.packages import PackageSender
from engine.executors.nodes.placement import Used
from engine.executors.nodes.process import NodeProcess
from engine.executors.nodes.report import NodeReport, NodeState
from engine.executors.nodes.streams import ApiStreams
from engine.executors.process import CLOSED, Exit
from engine.isolation.folders import labels_of
from engine.logs import lines
from engine.metrics.histogram import Histogram
from engine.model import Function

PINGS = 5  #: in the time of a lease
MISSED = 2.5  #: times between pings after which a node is silent
DRIFT, MARGIN = 1.01, 0.05  #: factor and seconds by which the engine waits longer than the lease
KILL_TIMEOUT = 30.0  #: seconds from the kill of an instance to its end
_RECHECK = 0.05  #: seconds for a ping that waits in the socket, because the engine itself was late

log = structlog.get_logger("functiond.nodes")


class NodeLost(OSError):
    """The node was lost or drained before an instance was launched on it."""


class Node:
    """Agent that has shown its token (protocols ``Machine`` and ``ConnectionOwner``)."""

    def __init__(
        self,
        hello: messages.Hello,
        welcome: messages.Welcome,
        connection: Connection,
        *,
        member: NodeReport,
        packages: PackageSender,
        streams: ApiStreams,
        remaining: Callable[[], float],
        on_change: Callable[[Node], None],
    ) -> None:
        """Create a node. ``member`` is its state without an agent.

        ``remaining`` returns the seconds for which the engine itself may certainly write. ``on_change`` is called for
        each new ``state``, and once when the node has been fenced.
        """
        self.name, self.session, self.lease = welcome.name, welcome.session, welcome.lease
        self.labels, self.cpus, self.memory, self.gpus = member.labels, hello.cpus, hello.memory, member.gpus
        self.state: NodeState = "joining"
        self.most, self.reason = -1, ""
        self.fenced = asyncio.Event()
        self.lacks: dict[str, str] = {}
        self.cause = ""  #: kind of the loss, for metrics
        self.ping_seconds, self.heard, self.joined_at = Histogram(), 0.0, time.time()
        self._joined: Joined | None = None
        self.connection, self._packages, self._streams = connection, packages, streams
        self._remaining, self._on_change, self._loop = remaining, on_change, asyncio.get_running_loop()
        self._processes: dict[int, NodeProcess] = {}
        self._killed: dict[int, float] = {}  #: times of the kills of these processes by the clock of the loop, in order
        self._preparing: dict[int, asyncio.Future[Prepared]] = {}
        self._number, self._drains = 0, False
        self._timer = self._loop.call_later(self.lease, self._recheck)
        #: Time of the loop from which certainly nothing runs on the node, if it is not heard again.
        self.fence_at = self._loop.time() + self.lease * DRIFT + MARGIN  # ``Welcome`` promises a lease
        self._grant()

    # --- instances ------------------------------------------------------------------------------------------

    async def prepare(self, function: Function, memory: int, gpus: tuple[str, ...] = ()) -> tuple[int, str]:
        """Have the agent make ready what an instance needs. Return the instance's number, and the worker's program.

        Raises the InvalidField or OSError of the agent, or NodeLost. The caller calls ``start`` or ``forget``.
        """
        if self.state != "ready":
            raise NodeLost(f"node {self.name} was lost")
        self._number = number = self._number + 2
        self._packages.allow(function.packages)
        waiter = self._preparing[number] = self._loop.create_future()
        messages.send(self.connection, messages.Prepare(number=number, function=function, memory=memory, gpus=gpus))
        try:
            prepared = await waiter
        except asyncio.CancelledError:
            self.forget(number)
            raise
        finally:
            del self._preparing[number]
        if prepared.problem is not None:
            raise prepared.problem.error()
        if self._drains:
            self.forget(number)
            raise NodeLost(f"node {self.name} was drained")
        return number, prepared.command

    def forget(self, number: int) -> None:
        """Release what the agent has prepared for an instance that does not start, or kill the instance."""
        messages.send(self.connection, messages.Kill(number))
        if number in self._processes:
            self._killed.setdefault(number, self._loop.time())

    def start(self, asked: messages.Start, process: NodeProcess) -> None:
        """Start the process of an instance that was prepared. It ends soon if the node is lost."""
        if not self.connection.open:
            self._loop.call_soon(process.end, Exit(None, lost=CLOSED))
            return
        self._processes[asked.number] = process
        messages.send(self.connection, asked)

    def drain(self) -> None:
        """Start no further instances. Dismiss all when they are idle, then let the agent exit for good.

        Raises ValueError if the node is not ready.
        """
        if self.state not in ("ready", "draining"):
            raise ValueError(f"it is {self.state}")
        self._drains = True
        self._set_state("draining")
        self._vacate(End.RETIRED)
        self._leave_if_drained()

    def report(self, used: Used) -> NodeReport:
        joined = self._joined
        return replace(
            convert(self, NodeReport, from_attributes=True),
            address=self.connection.peer(),
            instances=len(self._processes),
            busy=sum(1 for process in self._processes.values() if process.instance.assigned),
            cpus_used=used.cpus,
            memory_used=used.memory,
            gpus_used=used.gpus,
            walls=joined.walls if joined is not None else {},
            kills=joined.kills if joined is not None else "",
            heard=self._loop.time() - self.heard,
        )

    # --- lease ----------------------------------------------------------------------------------------------

    def fence(self, cause: str) -> None:
        """End all instances, because certainly nothing of them runs any more."""
        if self.fenced.is_set():
            return
        if self._drains and not self._processes:
            self.end("absent")
        else:
            self.cause = cause
            self.end("lost", self.reason or "its agent has ended")

    def end(self, state: NodeState, reason: str = "") -> None:
        """End a node of which nothing runs. ``state`` is its last."""
        self._timer.cancel()
        self.connection.abort("the node was lost")
        self._packages.close()
        self._streams.close()
        self._set_state(state, reason)  # first, so that freed capacity of the node is given to no one
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.end(Exit(None, lost=reason))
        self.fenced.set()
        self._on_change(self)

    def _grant(self) -> float:
        """Promise a lease from now on, no longer than the engine's own right to write. Return its seconds."""
        seconds, now = min(self.lease, self._remaining()), self._loop.time()
        # The answer may be lost: then the agent keeps the one before, which may have promised more.
        self.heard, self.fence_at = now, max(self.fence_at, now + seconds * DRIFT + MARGIN)
        self._set_timer(now + MISSED * self.lease / PINGS, self._recheck)
        return seconds

    def _set_timer(self, moment: float, expire: Callable[[], None]) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_at(moment, expire)

    def _recheck(self) -> None:
        self._set_timer(self._loop.time() + _RECHECK, self._fall_silent)

    def _fall_silent(self, reason: str = "its pings ended") -> None:
        """Take all work from a node, and wait until it is fenced."""
        self._set_state("lost" if not self.connection.open else "silent", reason)
        self._vacate(End.NODE_LOST)
        if not self.connection.open and not self._processes:
            self.fence("connection")  # nothing was running
            return
        cause = "silent" if self.connection.open else "connection"
        self._set_timer(self.fence_at, lambda: self.fence(cause))

    def _vacate(self, end: End) -> None:
        """End the idle instances, and let the others end after their calls."""
        for process in list(self._processes.values()):
            instance = process.instance
            if not instance.idle:
                process.owner.instance_suspect(instance)
            elif end is End.RETIRED:
                instance.dismiss()
            else:
                instance.kill(end)

    def _leave_if_drained(self) -> None:
        if self._drains and not self._processes:
            messages.send(self.connection, messages.Leave("the node was drained"))
            self.connection.close("the node was drained")

    def _set_state(self, state: NodeState, reason: str = "") -> None:
        if state != self.state:
            self.state, self.reason = state, reason
            write = log.warning if reason else log.info
            write("node changed", node=self.name, state=state, **({"reason": reason} if reason else {}))
            self._on_change(self)

    # --- called by the connection (``ConnectionOwner``) -----------------------------------------------------

    def received(self, kind: int, channel: int, body: bytes) -> None:
        if kind in (FRAMES, STDOUT, STDERR):
            if (process := self._processes.get(channel)) is None:
                return  # it was lost or is gone
            if kind == FRAMES:
                process.instance.received(body)
            else:
                process.instance.record_output(lines.STDOUT if kind == STDOUT else lines.STDERR, body)
        elif kind == STREAM:
            self._streams.received(channel, body)
        else:
            self._handle(messages.from_agent(body))

    def _handle(self, message: messages.FromAgent) -> None:
        match message:
            case Ping():
                self._answer(message.number)
            case Gone() if message.problem is None or not message.problem.field:  # an OSError
                self._remove(message)
            case Prepared():
                waiter = self._preparing.get(message.number)
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
            case messages.Fetch():
                self._packages.send(message.number, message.sha256)
            case messages.StreamRead():
                self._streams.acknowledged(message.number, message.size)
            case Joined() if self._joined is None:
                self._joined, self.lacks, self.labels = message, message.lacks, self.labels + labels_of(message.folders)
                self._set_state("ready")
            case Unfit() if self._joined is None:
                self._set_state("refused", message.reason)
                self.connection.close(message.reason)
            case _:
                raise ProtocolError(f"it sent {type(message).__name__} out of order")

    def _answer(self, number: int) -> None:
        late = self._loop.time() - self.heard - self.lease / PINGS
        self.ping_seconds.observe(late)
        messages.send(self.connection, messages.Pong(number, self._grant()))
        if self._killed and self.heard - next(iter(self._killed.values())) >= KILL_TIMEOUT:
            raise ProtocolError("it has not ended an instance that was killed")
        if self.state == "silent":
            self._set_state("draining" if self._drains else "ready" if self._joined else "joining")

    def _remove(self, gone: Gone) -> None:
        process = self._processes.pop(gone.number, None)
        self._killed.pop(gone.number, None)
        if process is None:
            return
        unread = gone.unread or gone.received < process.channel.sent
        failure = gone.problem.error() if gone.problem is not None else None
        process.end(Exit(gone.status, gone.out_of_memory, unread), failure)
        self._leave_if_drained()

    def closed(self, reason: str) -> None:
        for waiter in self._preparing.values():
            if not waiter.done():
                waiter.set_exception(NodeLost(f"node {self.name} was lost"))
        if self.fenced.is_set():
            return
        if self.state == "refused":
            self.end("refused", self.reason)
        elif self._drains and not self._processes:
            self.end("absent")
        else:
            self._fall_silent(reason)

    async def close(self) -> None:
        """End the connection, and wait until nothing of the node runs any more. Call when all instances are killed."""
        self._drains = True
        self.connection.close("the engine stops")
        await self.fenced.wait()
