"""``functiond nodes``: machines on which agents run instances for the engine."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.errors import UsageError
from engine.executors.nodes.report import NodeReport, NodesReport

COLUMNS = ("NODE", "STATE", "BUSY", "CPU", "MEMORY", "NETWORK", "ISOLATION", "HEARD", "LABELS")


def nodes(action: Literal["show", "drain"] = "show", node: str = "", /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the nodes, with their used and whole capacity, and the starts that wait for capacity.

    Parameters
    ----------
    action
        ``drain``: let no instance start on NODE. Its agent exits when the last instance has ended.
    node
        Name of the node to drain.
    """
    if (action == "drain") != bool(node):
        raise UsageError("name one node to drain: functiond nodes drain NODE")
    client = target.client().of_project
    if node:
        client.send("POST", f"/nodes/{quote(node, safe='')}/drain")
        print_done("draining", node, json=target.json, kind="node")
        return
    answer = client.get("/nodes")
    if target.json:
        print_json(answer)
        return
    report, output = msgspec.convert(answer, NodesReport), Output()
    print_table(COLUMNS, map(_row, report.nodes))
    for one in report.nodes:
        problems = [f"is {one.state}: {one.reason}"] if one.reason else []
        for problem in (*problems, *(f"lacks {family}: {why}" for family, why in one.lacks.items())):
            output.print(f"{one.name} {problem}", style="yellow", markup=False)
    for shape in report.waiting:
        fits = "" if shape.fits else "; no node that has joined could hold one"
        output.print(f"waits for {shape.seconds:.0f} s: {shape.starts} of {shape.text}{fits}", markup=False)
        output.print(f"  {', '.join(shape.functions)}", style="dim", markup=False)


def _row(node: NodeReport) -> tuple[str, ...]:
    return (
        node.name,
        node.state,
        f"{node.busy}/{node.instances}",
        f"{node.cpus_used:g}/{node.cpus:g}",
        f"{node.memory_used}/{node.memory} MB",
        node.walls.get("network", ""),
        node.walls.get("isolation", ""),
        "" if node.heard is None else f"{node.heard:.1f} s ago",
        ", ".join(node.labels),
    )
