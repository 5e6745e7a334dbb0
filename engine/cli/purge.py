"""``functiond purge``: cancel all invocations of a function that wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.output import Output, print_json
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.deploy.progress import status_line


def purge(
    name: str,
    /,
    *,
    running: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    source: str = "",
    error_code: Annotated[tuple[int, ...], Parameter(negative="", show_default=False)] = (),
    target: Target = DEFAULT_TARGET,
) -> None:
    """Cancel the waiting invocations of a function, of those that were accepted before the command started.

    They end as FAIL with code 4208, stay in the lists, and reach no destination. Pause the function first if none of
    them may start meanwhile.

    Parameters
    ----------
    name
        Name or URN of the function.
    running
        Cancel running invocations, too.
    source
        Cancel only invocations of this trigger type, or of ``API``. [default: any]
    error_code
        Cancel only invocations whose last attempt failed with this code. Repeat for several.
    """
    client = target.client()
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    states = "WAIT,RUNNING" if running else "WAIT"
    body = {"status": states, "source": source, "error_codes": list(error_code), "query_end_time": end}
    count = 0
    with status_line("cancelled", quiet=target.json) as show:
        for ended in _steps(client, name, body):
            count += ended
            show(f"{count:,}")
    if target.json:
        print_json({"cancelled": count})
    else:
        Output().print(f"[bold green]cancelled[/] {count} of [bold]{name}[/]")


def _steps(client: Client, name: str, body: dict[str, Any]) -> Iterator[int]:
    """Make steps until no more invocations are left. Yield how many each has ended."""
    ended = True
    while ended:  # another pass finds those that a pass has left out
        ended, marker = False, "0"
        while marker:
            step = client.post(path_of(name, "/async-invocations/cancel"), {**body, "marker": marker})
            marker = step["next_marker"]
            ended = ended or bool(step["cancelled"])
            yield len(step["cancelled"])
