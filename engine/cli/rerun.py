"""``functiond rerun``: invoke a function with the event of an earlier invocation, or with an edited event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.invocations import find_invocation
from engine.cli.invoke import read_event
from engine.cli.output import Output, print_json
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.errors import UsageError


def rerun(
    request_id: str,
    /,
    *,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    priority: int | None = None,
    delay: float | None = None,
    function: str | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Invoke a function again with the event of an invocation that has ended, or with an edited event.

    Parameters
    ----------
    request_id
        Request id of the earlier invocation.
    data
        Edited event as JSON. [default: the earlier event]
    file
        File that contains the edited event; ``-`` for standard input.
    priority
        0 to 9. [default: that of the earlier invocation]
    delay
        Seconds to wait before the first run.
    function
        Name or URN of the function. [default: search all functions]
    """
    client = target.client()
    changes: dict[str, Any] = {"priority": priority, "delay": delay}
    body = {name: value for name, value in changes.items() if value is not None}
    if data is not None or file is not None:
        body["event"] = _parsed(read_event(False, data, file))
    name, _ = find_invocation(client, request_id, function)
    found = client.post(path_of(name, f"/async-invocations/{request_id}/run-again"), body)
    if target.json:
        print_json(found)
    else:
        Output().print(f"[bold green]invoked again[/] {request_id} as {found['request_id']}")


def _parsed(event: bytes) -> Any:
    try:
        return json.loads(event)
    except ValueError as error:
        raise UsageError(f"the event is not JSON ({error}): correct --data or --file") from None
