"""Placement by a Ray cluster: each grant is a placement group, and waiting ones are demand for Ray's autoscaler."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from msgspec import Struct

from engine.executors.nodes.node import Node, NodeLost
from engine.executors.nodes.nodes import NodeSet
from engine.executors.nodes.options import NodesOptions
from engine.executors.nodes.placement import Grant, Machine, Shape, suits
from engine.executors.nodes.ray_link import Message, RayLink
from engine.executors.nodes.ray_nodes import RayNode, RayNodes, name_of
from engine.executors.nodes.static import StaticPlacement
from engine.runtimes.catalog import Family

_FALLBACK = 0.2  #: seconds until this machine is used instead of nodes
_REVIEW = 0.1  #: seconds from a change of a node until capacity is asked for again
_RETRY = 1.0  #: seconds after a grant that Ray could not give, for a reason that the placement process has printed


class Request(Struct, eq=False):
    """Capacity that is asked for."""

    shape: Shape
    avoid: Collection[Machine]
    granted: asyncio.Future[Grant]
    number: int = 0
    avoided: frozenset[str] = frozenset()  #: nodes that Ray was told to avoid, by their ids


class RayPlacement:
    """Placement on the nodes of a Ray cluster, and on this machine if it has joined (protocol ``Placement``)."""

    def __init__(self, options: NodesOptions, nodes: NodeSet) -> None:
        self.link = RayLink(options.python, options.ray, self._handle)
        self.nodes = RayNodes(options, nodes, self.link, self._review_soon)
        self._local, self._local_first = StaticPlacement(local_first=True), options.local == "first"
        self._requests: dict[int, Request] = {}  #: without capacity, by their numbers
        self._unusable: dict[Family | None, frozenset[str]] = {}  #: ids of nodes since the last change, by family
        self._loop = asyncio.get_running_loop()
        self._reviewing: asyncio.TimerHandle | None = None

    async def grant(self, shape: Shape, avoid: Collection[Machine]) -> Grant:
        """Wait for capacity, and for the agent of its node. Ask elsewhere if no agent joins soon."""
        if self._local_first and (granted := self._local.take(shape, avoid)) is not None:
            return granted
        while True:
            granted = await self._wait(Request(shape, avoid, self._loop.create_future()))
            if not isinstance(granted.machine, RayNode):
                return granted
            try:
                return Grant(shape, await self.nodes.wait(granted.machine), granted.number, granted.gpus)
            except BaseException as error:
                self._give_back(granted)
                if not isinstance(error, NodeLost):
                    raise

    async def _wait(self, request: Request) -> Grant:
        """Return a grant of this machine or of a ``RayNode``, whose agent may have yet to join."""
        self._ask(request)
        timer = self._loop.call_later(0 if self.link.problem else _FALLBACK, self._fall_back, request)
        try:
            return await request.granted
        except asyncio.CancelledError:
            if request.granted.done() and not request.granted.cancelled():
                self._give_back(request.granted.result())
            raise
        finally:
            timer.cancel()
            self._withdraw(request)

    def release(self, grant: Grant) -> None:
        """Give a grant to a request of the same size, because Ray looks only once a second, or else back to Ray."""
        node, size = self.nodes.by_name.get(grant.machine.name), grant.shape
        if node is not None and node.usable and node.agent is grant.machine:
            for request in self._requests.values():
                asked = request.shape
                same = (size.memory, size.cpus, size.gpus) == (asked.memory, asked.cpus, asked.gpus)
                fits = same and suits(node, asked) and grant.machine not in request.avoid
                if fits and not request.granted.done():
                    self._withdraw(request)
                    request.granted.set_result(Grant(asked, node, grant.number, grant.gpus))
                    return
        self._give_back(grant)

    def _give_back(self, grant: Grant) -> None:
        if not grant.number:
            self._local.release(grant)
            for request in list(self._requests.values()):
                self._fall_back(request)
            return
        self.link.send(release=grant.number)
        if (node := self.nodes.by_name.get(grant.machine.name)) is not None:
            self.nodes.note_grant(node, -1)

    def join(self, machine: Machine) -> None:
        if isinstance(machine, Node):
            self.nodes.join(machine)
        else:
            self._local.join(machine)

    def leave(self, machine: Machine) -> None:
        if isinstance(machine, Node):
            self.nodes.leave(machine)

    def fits(self, shape: Shape, avoid: Collection[Machine] = ()) -> bool:
        nodes = (node for node in self.nodes.by_name.values() if node.agent is None or node.agent not in avoid)
        return self._local.fits(shape, avoid) or any(node.alive and suits(node, shape) for node in nodes)

    def _ask(self, request: Request) -> None:
        shape = request.shape
        request.number, request.avoided = next(self.nodes.numbers), self._avoided(request)
        self._requests[request.number] = request
        size = {"cpus": shape.cpus, "memory": shape.memory << 20, "gpus": shape.gpus}
        labels = dict(label.split("=", 1) for label in shape.labels)
        self.link.send(grant=request.number, **size, labels=labels, avoid=sorted(request.avoided))

    def _withdraw(self, request: Request) -> None:
        """Ask no more, if the request still waits."""
        if self._requests.pop(request.number, None) is request:
            self.link.send(release=request.number)

    def _ask_again(self, request: Request) -> None:
        if self._requests.get(request.number) is request:
            self._withdraw(request)
            self._ask(request)

    def _fall_back(self, request: Request) -> None:
        if not request.granted.done() and (granted := self._local.take(request.shape, request.avoid)) is not None:
            self._withdraw(request)
            request.granted.set_result(granted)

    def _avoided(self, request: Request) -> frozenset[str]:
        """Return the ids of the nodes that cannot be used for a request."""
        family, nodes = request.shape.family, self.nodes.by_name.values()
        if (unusable := self._unusable.get(family)) is None:
            ids = (node.id for node in nodes if node.alive and (not node.usable or family in node.lacks))
            unusable = self._unusable[family] = frozenset(ids)
        return unusable.union(node.id for node in nodes if node.agent in request.avoid) if request.avoid else unusable

    def _review_soon(self) -> None:
        """Ask again soon, once for many changes of nodes: Ray gives some 300 grants a second."""
        self._unusable.clear()
        if self._reviewing is None:
            self._reviewing = self._loop.call_later(_REVIEW, self._review)

    def _review(self) -> None:
        """Ask again for capacity if other nodes can be used than before. Ray answers nothing while its head is away."""
        self._reviewing = None
        for request in list(self._requests.values()):
            if not self.link.problem and request.avoided != self._avoided(request):
                self._ask_again(request)

    def _handle(self, message: Message) -> None:
        match message:
            case {"granted": number, "node": node_id, "gpus": gpus} if number in self._requests:
                request = self._requests[number]
                if (node := self.nodes.by_name.get(name_of(node_id))) is None:  # Ray has lost it meanwhile
                    self._ask_again(request)
                elif not request.granted.done():  # else ``_wait`` withdraws it
                    del self._requests[number]
                    self.nodes.note_grant(node, 1)
                    request.granted.set_result(Grant(request.shape, node, number, tuple(gpus)))
            case {"failed": number} if number in self._requests:
                self._loop.call_later(_RETRY, self._ask_again, self._requests[number])
            case {"ended": number, "status": status, "output": output}:
                self.nodes.ended(number, status, output)
            case {"problem": ""}:
                self._review()
            case {"nodes": nodes}:
                self.nodes.describe(nodes)
            case {"ready": _}:
                for request in list(self._requests.values()):
                    self._ask_again(request)
            case {"exited": _}:
                self.nodes.disconnected()
