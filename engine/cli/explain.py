"""``functiond explain``: why an invocation waits, and how many start before it."""

from __future__ import annotations

from engine.cli.invocations import find_invocation
from engine.cli.output import Output, coloured, print_json
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of


def explain(request_id: str, /, *, function: str | None = None, target: Target = DEFAULT_TARGET) -> None:
    """Show why an invocation waits, and how many invocations of its function start before it.

    Parameters
    ----------
    request_id
        Request id of the invocation, which the engine returned on acceptance.
    function
        Name or URN of its function. [default: search all functions]
    """
    client = target.client()
    name, record = find_invocation(client, request_id, function)
    found = client.get(path_of(name, f"/async-invocations/{record['request_id']}/explain"))
    if target.json:
        print_json(found)
        return
    output = Output()
    output.print(f"[bold]{found['request_id']}[/] {coloured(found['status'])}")
    for one in found["reasons"]:
        output.data(f"  {one['reason']:<9} {one['text']}", style="")
    if found["status"] == "WAIT" and not found["reasons"]:
        output.print("  It starts next.", style="dim")
