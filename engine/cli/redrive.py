"""``functiond deliveries`` and ``redrive``: list pending deliveries; send failed work again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.invocations import find_invocation
from engine.cli.output import Output, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.errors import UsageError
from engine.model.urn import short_name

STEP = 500  #: invocations or deliveries per request


def deliveries(*, limit: int = 100, after: int = 0, target: Target = DEFAULT_TARGET) -> None:
    """List deliveries that were given up, then deliveries that wait or will be retried.

    Parameters
    ----------
    limit
        Maximum number of each kind; at most 500 that were given up.
    after
        List only waiting deliveries, starting after this delivery number.
    """
    client = target.client().of_project
    page = client.get("/deliveries", limit=limit, after=after)
    found = [] if after else page["deliveries"]
    waiting = page["retrying"]
    # A page may be short: it covers a limited number of rows, also of given-up deliveries and other projects.
    while len(waiting) < limit and (further := page["next_after"]):
        page = client.get("/deliveries", limit=limit - len(waiting), after=further)
        waiting += page["retrying"]
    found += waiting
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No pending deliveries.", style="dim")
    else:
        columns = ("DELIVERY", "FUNCTION", "REQUEST ID", "DESTINATION", "STATE", "TRIES", "NEXT TRY", "ERROR")
        print_table(columns, map(_row, found))
        if page["next_after"]:
            Output().print(f"To list more: functiond deliveries --after {page['next_after']}", style="dim")


def redrive(
    *ids: str,
    all: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    failed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    function: str | None = None,
    hours: float = 24.0,
    limit: int | None = None,
    status: str = "",
    error_code: Annotated[tuple[int, ...], Parameter(negative="", show_default=False)] = (),
    source: str = "",
    target: Target = DEFAULT_TARGET,
) -> None:
    """Send pending or given-up deliveries again, or run failed invocations again.

    Parameters
    ----------
    ids
        Delivery numbers, or request ids of invocations that ended as FAIL or DISCARD.
    all
        Send all deliveries again that were given up.
    failed
        Run all failed and discarded invocations of --function again, newest first, except cancelled ones.
    function
        Name or URN of the function of the invocations. [default: search all functions for a request id]
    hours
        Hours that --failed looks back. Repeating the command within a day sends nothing twice.
    limit
        Maximum number of invocations for --failed.
    status
        Only those that ended so, for --failed: FAIL or DISCARD. [default: both]
    error_code
        Only those with this code, for --failed. Repeat for several. 4208: those that were cancelled or purged.
    source
        Only those of this trigger type, or of ``API``, for --failed. [default: any]
    """
    if bool(ids) + all + failed != 1:
        raise UsageError("give delivery numbers or request ids, or use --all, or use --failed with --function")
    if all and function:
        raise UsageError("--all sends the deliveries of all functions again: omit --function, or use --failed")
    if not failed and (status or error_code or source):
        raise UsageError("--status, --error-code and --source need --failed")
    if failed and not function:
        raise UsageError("--failed needs --function: name the function whose invocations to send again")
    client = target.client()
    if failed and function:
        chosen = {"status": status.upper(), "error_codes": list(error_code), "source": source}
        done = _redrive_failed(client, function, hours, limit, chosen)
    else:
        done = _redrive_named(client, ids, all, function)
    if target.json:
        print_json(list(done))
        return
    empty = True
    for one in done:
        empty = False
        _print_result(one)
    if empty:
        reason = "no delivery has this number" if ids else "no delivery was given up"
        reason = f"no invocation failed in the last {hours:g} hours" if failed else reason
        Output().print(f"Nothing to send again: {reason}.", style="dim")


def _redrive_named(client: Client, ids: Sequence[str], all: bool, function: str | None) -> Iterator[dict[str, Any]]:
    numbers = [int(one) for one in ids if one.isascii() and one.isdigit()]
    if numbers or all:
        yield from ({"delivery_id": one} for one in _deliver(client, numbers))
    for request_id in (one for one in ids if not (one.isascii() and one.isdigit())):
        name, _ = find_invocation(client, request_id, function)
        yield from _send(client, name, {"request_ids": [request_id]})["redriven"]


def _deliver(client: Client, numbers: Sequence[int]) -> Iterator[int]:
    """Send deliveries again, without numbers all that were given up. Yield the numbers of those that were sent."""
    path, after = "/deliveries/redrive", 0
    if numbers:
        yield from client.of_project.post(path, {"delivery_ids": numbers})["redriven"]
        return
    while True:
        step = client.of_project.post(path, {"all": True, "limit": STEP, "after": after})
        yield from step["redriven"]
        after = step["next_after"]
        if not after:
            return


def _redrive_failed(
    client: Client, function: str, hours: float, limit: int | None, chosen: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Run failed and discarded invocations of a function again, in batches: one API request for each.

    Yields a JSON object for each: with its new request id, or with an error message if it was refused.
    """
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - hours * 3600))
    body = {"failed": True, "query_begin_time": begin, "counted": False, **chosen}
    left = inf if limit is None else limit
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


def _print_result(one: dict[str, Any]) -> None:
    if "error_message" in one:
        Output().print(f"not sent again {one['request_id']}: {one['error_message']}", style="yellow", markup=False)
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
