"""Machines on which agents run instances for the engine (extension of the API)."""

from __future__ import annotations

from engine.auth.roles import OPERATOR
from engine.errors import Conflict, NotFound
from engine.executors.nodes.report import Nodes, NodesReport
from engine.http.api.routing import BASE, ApiFamily, Call, Subject, operation, read


class NodesApi(ApiFamily):
    """Family of the nodes; ``nodes`` is None if the engine has none."""

    subject = Subject("node", ("name",), ("name",))

    def __init__(self, nodes: Nodes | None) -> None:
        self._nodes = nodes

    @read("ListNodes", f"{BASE}/nodes", NodesReport, own=True, roles=OPERATOR)
    async def show(self, call: Call) -> NodesReport:
        return self._present().report()

    @operation("DrainNode", "POST", f"{BASE}/nodes/{{name}}/drain", reply=NodesReport, own=True, roles=OPERATOR)
    async def drain(self, call: Call) -> NodesReport:
        """Let no instance start on the node. Its agent exits when the last instance has ended."""
        nodes, name = self._present(), call.part("name")
        try:
            nodes.drain(name)
        except KeyError:
            raise NotFound(f"no node {name[:63]}: executor.nodes.agents does not name it") from None
        except ValueError as problem:
            raise Conflict(f"the node {name} cannot be drained: {problem}") from None
        return nodes.report()

    def _present(self) -> Nodes:
        if self._nodes is None:
            raise NotFound("this engine has no nodes: set listen and agents in the section [executor.nodes]")
        return self._nodes
