"""``functiond nodes``: machines on which agents run instances for the engine."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.errors import UsageError
from engine.executors.nodes.report import COLUMNS, NodesReport


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
    print_table(COLUMNS, (one.row for one in report.nodes))
    for note in report.notes:
        output.print(note, style="yellow", markup=False)
