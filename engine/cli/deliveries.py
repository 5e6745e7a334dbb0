"""Commands for deliveries of outcomes, and for failed work that is sent or run again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

from engine.cli.invocations import find_invocation
from engine.cli.invoke import File, Text, read_event
from engine.cli.options import Codes, Flag
from engine.cli.output import Output, Row, print_json, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.deploy.progress import status_line
from engine.errors import UsageError
from engine.model.urn import short_name

STEP = 500  #: invocations or deliveries per request


def destinations(*, target: Target = DEFAULT_TARGET) -> None:
    """List the destinations of all functions, with their states since the engine started."""
    listed = target.client().of_project.get_all("/destinations", "destinations")
    print_list(listed, "No destinations.", _destination_row, json=target.json)


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
    listed = [] if after else page["deliveries"]
    waiting = page["retrying"]
    # A page may be short: it covers a limited number of rows, also of given-up deliveries and other projects.
    while len(waiting) < limit and (further := page["next_after"]):
        page = client.get("/deliveries", limit=limit - len(waiting), after=further)
        waiting += page["retrying"]
    listed += waiting
    print_list(listed, "No pending deliveries.", _delivery_row, json=target.json)
    if listed and page["next_after"] and not target.json:
        Output().print(f"To list more: functiond deliveries --after {page['next_after']}", style="dim")


def redrive(
    *ids: str,
    all: Flag = False,
    failed: Flag = False,
    function: str | None = None,
    hours: float = 24.0,
    limit: int | None = None,
    status: str = "",
    error_code: Codes = (),
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
    for result in done:
        empty = False
        _print_result(result)
    if empty:
        reason = "no delivery has this number" if ids else "no delivery was given up"
        reason = f"no invocation failed in the last {hours:g} hours" if failed else reason
        Output().print(f"Nothing to send again: {reason}.", style="dim")


def _redrive_named(client: Client, ids: Sequence[str], all: bool, function: str | None) -> Iterator[dict[str, Any]]:
    numbers = [int(text) for text in ids if text.isascii() and text.isdigit()]
    if numbers or all:
        yield from ({"delivery_id": number} for number in _deliver(client, numbers))
    for request_id in (text for text in ids if not (text.isascii() and text.isdigit())):
        name, _ = find_invocation(client, request_id, function)
        yield from _send(client, name, {"request_ids": [request_id]})["redriven"]


def _deliver(client: Client, numbers: Sequence[int]) -> Iterator[int]:
    """Send deliveries again, without numbers all that were given up. Yield the numbers of those that were sent."""
    if numbers:
        yield from client.of_project.post("/deliveries/redrive", {"delivery_ids": numbers})["redriven"]
    else:
        for step in _given_up(client, "redrive", {}):
            yield from step["redriven"]


def _given_up(client: Client, action: str, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Redrive or discard all deliveries that were given up, in steps. Yield the reply to each."""
    after = 0
    while True:
        step = client.of_project.post(f"/deliveries/{action}", {"all": True, "limit": STEP, "after": after, **chosen})
        yield step
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
        for entry in step["redriven"] + step["refused"]:
            left -= 1
            yield entry
        if not step["next_marker"]:
            return
        body["marker"] = step["next_marker"]


def _send(client: Client, function: str, body: dict[str, Any]) -> Any:
    return client.post(path_of(function, "/async-invocations/redrive"), body)


def _print_result(result: dict[str, Any]) -> None:
    if "error_message" in result:
        text = f"not sent again {result['request_id']}: {result['error_message']}"
        Output().print(text, style="yellow", markup=False)
        return
    sent = f" as {result['new_request_id']}" if "new_request_id" in result else ""
    Output().print(f"[bold green]sent again[/] {result.get('delivery_id', result.get('request_id'))}{sent}")


def rerun(
    request_id: str,
    /,
    *,
    data: Text = None,
    file: File = None,
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
        try:
            body["event"] = json.loads(read_event(False, data, file))
        except ValueError as error:
            raise UsageError(f"the event is not JSON ({error}): correct --data or --file") from None
    name, _ = find_invocation(client, request_id, function)
    invoked = client.post(path_of(name, f"/async-invocations/{request_id}/run-again"), body)
    text = f"[bold green]invoked again[/] {request_id} as {invoked['request_id']}"
    print_result(invoked, text, json=target.json)


def discard(*deliveries: int, all: Flag = False, function: str = "", target: Target = DEFAULT_TARGET) -> None:
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
    client, count = target.client(), 0
    steps = _given_up(client, "discard", {"function": function}) if all else _discard_named(client, deliveries)
    with status_line("discarded", quiet=target.json) as show:
        for step in steps:
            count += len(step["discarded"])
            show(f"{count:,}")
    none = "[dim]Nothing to discard: no such delivery was given up.[/]"
    print_result({"discarded": count}, f"[bold green]discarded[/] {count}" if count else none, json=target.json)


def _discard_named(client: Client, deliveries: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(deliveries), STEP):
        yield client.of_project.post("/deliveries/discard", {"delivery_ids": deliveries[first : first + STEP]})


def _destination_row(destination: dict[str, Any]) -> Row:
    return {
        "FUNCTION": short_name(destination["func_urn"]),
        "ON": destination["condition"],
        "DESTINATION": destination["destination"],
        "STATE": destination["state"],
        "FAILURES": str(destination["failures"]),
        "NEXT TRY": destination["next_try"].replace("T", " "),
        "PROBLEM": destination["problem"],
    }


def _delivery_row(item: dict[str, Any]) -> Row:
    return {
        "DELIVERY": str(item["delivery_id"]),
        "FUNCTION": short_name(item["func_urn"]),
        "REQUEST ID": item["request_id"],
        "DESTINATION": item["destination"],
        "STATE": item["destination_state"],
        "TRIES": str(item["tries"]),
        "NEXT TRY": "under way" if item["under_way"] else item["next_try"] or "given up",
        "ERROR": item["error"],
    }
