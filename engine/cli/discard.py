"""``functiond discard``: remove deliveries that were given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.output import Output, print_json
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client
from engine.deploy.progress import status_line
from engine.errors import UsageError

STEP = 500  #: deliveries per request


def discard(
    *deliveries: int,
    all: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    function: str = "",
    target: Target = DEFAULT_TARGET,
) -> None:
    """Remove deliveries that were given up. They cannot be sent again afterwards; their invocations stay.

    Parameters
    ----------
    deliveries
        Delivery numbers, as ``functiond deliveries`` lists them.
    all
        Remove all that were given up.
    function
        Remove only those of this function, for --all. [default: all functions]
    """
    if bool(deliveries) is all:
        raise UsageError("give delivery numbers, or use --all")
    if function and not all:
        raise UsageError("--function needs --all")
    client = target.client()
    steps = _all(client, function) if all else _named(client, deliveries)
    count = 0
    with status_line("discarded", quiet=target.json) as show:
        for done in steps:
            count += done
            show(f"{count:,}")
    if target.json:
        print_json({"discarded": count})
    elif count:
        Output().print(f"[bold green]discarded[/] {count}")
    else:
        Output().print("Nothing to discard: no such delivery was given up.", style="dim")


def _named(client: Client, deliveries: tuple[int, ...]) -> Iterator[int]:
    for first in range(0, len(deliveries), STEP):
        yield len(_send(client, {"delivery_ids": deliveries[first : first + STEP]})["discarded"])


def _all(client: Client, function: str) -> Iterator[int]:
    after = 0
    while True:
        step = _send(client, {"all": True, "function": function, "limit": STEP, "after": after})
        yield len(step["discarded"])
        after = step["next_after"]
        if not after:
            return


def _send(client: Client, body: dict[str, Any]) -> Any:
    return client.of_project.post("/deliveries/discard", body)
