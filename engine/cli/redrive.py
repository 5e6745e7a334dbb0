"""``functiond deliveries`` and ``redrive``: what is not delivered, and sending again what ended badly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.client import Client, UsageError, path_of
from engine.cli.invocations import find_invocation
from engine.cli.output import Output, print_json, print_table
from engine.cli.target import HERE, Target
from engine.model.urn import short_name

STEP = 100  #: invocations sent again by one request


def deliveries(*, limit: int = 100, after: int = 0, target: Target = HERE) -> None:
    """List the outcomes that are not delivered: first what was given up, then what waits or is tried again by itself.

    Parameters
    ----------
    limit
        How many of each at most; of those that were given up, up to 500.
    after
        Begin behind the delivery of this number, and leave out all that was given up.
    """
    client = target.client().of_project
    page = client.get("/deliveries", limit=limit, after=after)
    found = [] if after else page["deliveries"]
    waiting = page["retrying"]
    while len(waiting) < limit and (further := page["next_after"]):  # it has looked at many that were given up
        page = client.get("/deliveries", limit=limit - len(waiting), after=further)
        waiting += page["retrying"]
    found += waiting
    if target.json:
        print_json(found)
    elif not found:
        Output().print("Everything is delivered.", style="dim")
    else:
        columns = ("DELIVERY", "FUNCTION", "REQUEST ID", "DESTINATION", "STATE", "TRIES", "NEXT TRY", "ERROR")
        print_table(columns, map(_row, found))
        if page["next_after"]:
            Output().print(f"More wait: functiond deliveries --after {page['next_after']}", style="dim")


def redrive(
    *ids: str,
    all: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    failed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    function: str | None = None,
    hours: float = 24.0,
    limit: int | None = None,
    target: Target = HERE,
) -> None:
    """Send again what ended badly: deliveries that were given up or wait, or invocations that failed.

    Parameters
    ----------
    ids
        Numbers of deliveries, or request ids of invocations that ended as FAIL or DISCARD.
    all
        All deliveries that were given up.
    failed
        All invocations of --function that failed or were discarded, the newest first; not those that were cancelled.
    function
        Name or URN of the invocations' function; without it, all are looked through for a request id.
    hours
        How far --failed goes back. Who says it again within a day sends nothing twice.
    limit
        How many --failed sends again, at most.
    """
    if bool(ids) + all + failed != 1:
        raise UsageError("name deliveries or request ids, or say --all, or --failed with --function")
    if all and function:
        raise UsageError("--all sends the deliveries of all functions again: leave --function out, or say --failed")
    if failed and not function:
        raise UsageError("--failed needs --function: name the one whose invocations are to be sent again")
    client = target.client()
    done = _failed(client, function, hours, limit) if failed and function else _named(client, ids, all, function)
    if target.json:
        print_json(list(done))
        return
    nothing = True
    for one in done:
        nothing = False
        _tell(one)
    if nothing:
        ended = f"failed in the last {hours:g} hours" if failed else "has such a number" if ids else "was given up"
        Output().print(f"Nothing to send again: there is none that {ended}.", style="dim")


def _named(client: Client, ids: Sequence[str], all: bool, function: str | None) -> Iterator[dict[str, Any]]:
    numbers = [int(one) for one in ids if one.isascii() and one.isdigit()]
    if numbers or all:
        body: dict[str, Any] = {"all": True} if all else {"delivery_ids": numbers}
        answer = client.of_project.send("POST", "/deliveries/redrive", json.dumps(body).encode())
        yield from ({"delivery_id": one} for one in answer.json["redriven"])
    for request_id in (one for one in ids if not (one.isascii() and one.isdigit())):
        name, _ = find_invocation(client, request_id, function)
        yield from _send(client, name, {"request_ids": [request_id]})["redriven"]


def _failed(client: Client, function: str, hours: float, limit: int | None) -> Iterator[dict[str, Any]]:
    """In steps; also what can never be sent again, with the reason."""
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - hours * 3600))
    body, left = {"failed": True, "query_begin_time": begin}, inf if limit is None else limit
    while left > 0:
        step = _send(client, function, {**body, "limit": min(STEP, left)})
        for one in step["redriven"] + step["refused"]:
            left -= 1
            yield one
        if not step["next_marker"]:
            return
        body["marker"] = step["next_marker"]


def _send(client: Client, function: str, body: dict[str, Any]) -> Any:
    return client.send("POST", path_of(function, "/async-invocations/redrive"), json.dumps(body).encode()).json


def _tell(one: dict[str, Any]) -> None:
    if "error_message" in one:
        Output().print(f"not sent {one['request_id']}: {one['error_message']}", style="yellow", markup=False)
        return
    sent = f" as {one['new_request_id']}" if "new_request_id" in one else ""
    Output().print(f"[bold green]sent again[/] {one.get('delivery_id', one.get('request_id'))}{sent}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(item["delivery_id"]),
        short_name(item["func_urn"]),
        item["request_id"],
        item["destination"],
        item["destination_state"],
        str(item["tries"]),
        "under way" if item["under_way"] else item["next_try"] or "given up",
        item["error"],
    )
