"""Launcher of instances on nodes and on this machine, by the capacity that the placement grants."""

from __future__ import annotations

import asyncio
import math
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anyio import create_task_group
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import InvalidField, NoInterpreter
from engine.executors.call import Call, End, Key
from engine.executors.instance import Instance, InstanceOwner
from engine.executors.launcher import LaunchPlan, load_timeout
from engine.executors.local.launcher import LocalLauncher, LocalOptions
from engine.executors.logs import LogRecorder
from engine.executors.nodes.messages import Start
from engine.executors.nodes.node import Node, NodeLost
from engine.executors.nodes.nodes import NodeSessions, NodeSet
from engine.executors.nodes.options import NodesOptions
from engine.executors.nodes.placement import Grant, Machine, Placement, Shape, Used, suits
from engine.executors.nodes.process import NodeChannel, NodeProcess
from engine.executors.nodes.ray import RayPlacement
from engine.executors.nodes.report import NodesReport, NodesStatistics, WaitingShape
from engine.executors.nodes.static import StaticPlacement
from engine.isolation.folders import folders_of, labels_of
from engine.metrics.histogram import Histogram
from engine.model import Function
from engine.model.limits import cpu_of
from engine.runtimes.catalog import family_of
from engine.runtimes.protocol import Answer

_TRIES = 3  #: nodes on which the preparation of one instance may fail
_PATIENCE = 0.05  #: seconds of a wait for capacity until the run gives its slot back, and between two dismissals
_SHOWN = 10  #: functions of a shape in a report


class ThisMachine:
    """Machine of the engine (protocol ``Machine``)."""

    def __init__(self, most: int, memory: int, labels: tuple[str, ...] = ()) -> None:
        self.name, self.labels, self.lacks = "", labels, dict[str, str]()
        self.most, self.cpus, self.memory, self.gpus = most, math.inf, memory, 0.0


class Wish(Struct, frozen=True, eq=False):
    """Wait for the capacity of one instance."""

    shape: Shape
    function: str  #: ``project/function``
    since: float  #: by the clock of the loop


class NodeLauncher:
    """Launcher of instances on nodes and on this machine (protocols ``Launcher`` and ``Nodes``)."""

    def __init__(
        self,
        local: LocalLauncher,
        options: NodesOptions,
        rules: LocalOptions,
        *,
        package_file: Callable[[str], Path],
        recorder: LogRecorder,
        memory: int,
    ) -> None:
        """Create a launcher. ``memory`` is the number of MiB for instances on this machine; 0: no limit.

        ``package_file`` returns the path of a package as it was received, by its SHA-256.
        """
        self.walls, self.function_uids, self.interpreters = local.walls, local.function_uids, local.interpreters
        #: see ``Allocator.make_room``; set by the pool
        self.make_room: Callable[[Callable[[Instance], bool]], bool]
        self._local, self._options, self._rules, self._recorder = local, options, rules, recorder
        self.nodes = NodeSet(options, rules, package_file, self._on_change)
        self._ray = RayPlacement(options, self.nodes) if options.ray else None
        self._placement: Placement = self._ray or StaticPlacement(local_first=options.local == "first")
        if options.local != "never":
            self._placement.join(ThisMachine(options.local_slots, memory or sys.maxsize, labels_of(local.folders)))
        self._grants: dict[Instance, Grant] = {}
        self._remote: dict[str, NodeProcess] = {}  #: of instances on nodes, by their ids
        self._wishes: set[Wish] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None  #: next dismissal
        self._grant_seconds = Histogram()

    async def run(
        self, sessions: NodeSessions, remaining: Callable[[], float], *, task_status: TaskStatus[None]
    ) -> None:
        """Admit agents until cancelled. ``remaining`` returns for how many seconds the engine may certainly write."""
        listener = await self.nodes.open(sessions, remaining)
        task_status.started()
        async with create_task_group() as tasks:
            tasks.start_soon(listener.run)
            if self._ray is not None:
                tasks.start_soon(self._ray.link.run)

    def function_of(self, instance_id: str) -> Function | None:
        remote = self._remote.get(instance_id)
        return remote.function if remote is not None else self._local.function_of(instance_id)

    async def check_runtime(self, runtime: str) -> None:
        try:
            await self._local.check_runtime(runtime)
        except NoInterpreter:
            if all(family_of(runtime) in node.lacks for node in self.nodes.joined):
                raise

    # --- Launcher -------------------------------------------------------------------------------------------

    async def prepare(self, key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        """Wait for capacity, and make the machine ready. Another machine is tried if one cannot be made ready.

        ``on_wait`` is called if there is no capacity for a while.
        """
        if family_of(function.runtime) is None:
            await self._local.check_runtime(function.runtime)  # raises
        name = f"{function.project}/{function.name}"
        shape = self._shape(function, name, key[-1])
        avoid: list[Machine] = []
        while True:
            with self._waiting(Wish(shape, name, self._loop.time()), on_wait):
                grant = await self._placement.grant(shape, avoid)
            try:
                return await self._prepare(grant, key, function, on_wait)
            except BaseException as error:
                self._placement.release(grant)
                avoid.append(grant.machine)
                if not isinstance(error, OSError | InvalidField):
                    raise
                may_try = len(avoid) < _TRIES and self._placement.fits(shape, avoid)
                if not may_try and not isinstance(error, NodeLost):  # a lost node says nothing of the function
                    raise

    def _shape(self, function: Function, name: str, memory: int) -> Shape:
        """Return the needs of an instance. Raises InvalidField for a GPU or folder that the settings do not offer."""
        folders = labels_of(folders_of(function, self._rules.sandbox.folders))
        labels, gpus, kinds = {*self._options.needs.get(name, ()), *folders}, 0.0, self._options.gpus
        kind, share = function.details.get("gpu_type", ""), function.details.get("gpu_memory", 0)
        if kinds and (kind or share):
            if (gpu := kinds.get(kind)) is None or share > gpu.memory:
                offered = ", ".join(f"{name} with at most {gpu.memory} MB" for name, gpu in kinds.items())
                raise InvalidField("gpu_type", f"{kind} with {share} MB", f"executor.nodes.gpus offers {offered}")
            labels |= {*gpu.labels}
            gpus = max(0.0001, round((share or gpu.memory) / gpu.memory, 4))  # the smallest share of Ray
        return Shape(memory, cpu_of(memory) / 1000, frozenset(labels), family_of(function.runtime), gpus)

    async def _prepare(self, grant: Grant, key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        if not isinstance(grant.machine, Node):
            plan = await self._local.prepare(key, function, on_wait)
            return plan._replace(where=(grant, 0))
        number, command = await grant.machine.prepare(function, key[-1], grant.gpus)
        return LaunchPlan(key, function, [command], uuid.uuid4().hex, (grant, number))

    def launch(self, plan: LaunchPlan, owner: InstanceOwner) -> Instance:
        grant, number = plan.where
        try:
            if isinstance(grant.machine, Node):
                instance = self._launch(plan, owner, grant.machine, number)
            else:
                instance = self._local.launch(plan, owner)
        except BaseException:
            self._placement.release(grant)
            raise
        self._grants[instance] = grant
        return instance

    def _launch(self, plan: LaunchPlan, owner: InstanceOwner, node: Node, number: int) -> Instance:
        channel = NodeChannel(node.connection, number)
        process = NodeProcess(plan, owner, channel, partial(node.forget, number))
        process.instance = instance = Instance(
            process,
            key=plan.key,
            function=plan.function,
            owner=owner,
            recorder=self._recorder,
            on_work=lambda instance: None,
            grace=self._rules.term_grace,
        )
        instance.node = node.name
        instance.connect(channel)
        access, agency = self._rules.access, self._rules.agency_of(plan.function, plan.instance)
        token = access.token_of(plan.function, plan.instance) if access is not None else ""
        node.start(Start(number=number, instance=plan.instance, token=token, agency=agency), process)
        self._remote[plan.instance] = process
        return instance

    async def load(self, instance: Instance, start: Call) -> Answer | None:
        process = self._remote.get(instance.id)
        if process is None:
            return await self._local.load(instance, start)
        answer = await instance.request(start, b"", load_timeout(start.function))  # the agent has sent SETUP
        if answer is None and instance.end is End.EXITED:
            await instance.closed.wait()  # sets the failure
            if process.failure is not None:
                raise process.failure
        return answer

    def clear(self, instance: Instance) -> None:
        if self._remote.pop(instance.id, None) is None:
            self._local.clear(instance)
        self._placement.release(self._grants.pop(instance))

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.nodes.close()
        if self._ray is not None:
            await self._ray.link.close()
        await self._local.close()

    # --- Nodes ----------------------------------------------------------------------------------------------

    def drain(self, name: str) -> None:
        self.nodes.node(name).drain()

    def report(self) -> NodesReport:
        shapes: dict[Shape, list[Wish]] = {}
        for wish in self._wishes:
            shapes.setdefault(wish.shape, []).append(wish)
        return NodesReport(
            nodes=self.nodes.reports(self._used),
            waiting=tuple(self._describe(shape, wishes) for shape, wishes in shapes.items()),
            problem=self._ray.link.problem if self._ray is not None else "",
        )

    def statistics(self) -> NodesStatistics:
        return NodesStatistics(
            losses=dict(self.nodes.losses),
            package_bytes=self.nodes.package_bytes,
            grant_seconds=self._grant_seconds.snapshot(),
            fence_seconds=self.nodes.fence_seconds.snapshot(),
            ping_seconds=self.nodes.ping_seconds.snapshot(),
        )

    def _used(self, node: Node) -> Used:
        return Used(grant for grant in self._grants.values() if grant.machine is node)

    def _describe(self, shape: Shape, wishes: list[Wish]) -> WaitingShape:
        return WaitingShape(
            cpus=shape.cpus,
            memory=shape.memory,
            labels=tuple(sorted(shape.labels)),
            family=shape.family or "",
            gpus=shape.gpus,
            starts=len(wishes),
            functions=tuple(sorted({wish.function for wish in wishes}))[:_SHOWN],
            seconds=self._loop.time() - min(wish.since for wish in wishes),
            fits=self._placement.fits(shape),
        )

    # --- capacity -------------------------------------------------------------------------------------------

    @contextmanager
    def _waiting(self, wish: Wish, on_wait: Callable[[], None]) -> Iterator[None]:
        """Note a wish until the block ends. Tell the caller after a while, and then dismiss idle instances for it."""
        self._wishes.add(wish)
        timers = [self._loop.call_later(_PATIENCE, call) for call in (on_wait, self.note_idle)]
        try:
            yield
            self._grant_seconds.observe(self._loop.time() - wish.since)
        finally:
            for timer in timers:
                timer.cancel()
            self._wishes.remove(wish)

    def note_idle(self) -> None:
        """Dismiss an instance soon if there are idle ones, and others wait for capacity."""
        if self._wishes and self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._dismiss_idle)

    def _dismiss_idle(self) -> None:
        """Dismiss an idle instance whose machine one of the wishes could use, and look again shortly."""
        self._timer = None
        shapes = {wish.shape for wish in self._wishes}

        def helps(instance: Instance) -> bool:
            return any(suits(self._grants[instance].machine, shape) for shape in shapes)

        if self.make_room(helps):
            self.note_idle()

    def _on_change(self, node: Node) -> None:
        if node.state == "ready":
            self._placement.join(node)
        else:
            self._placement.leave(node)
