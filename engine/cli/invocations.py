"""``functiond invocations``, ``show`` and ``cancel``: state of asynchronous invocations."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from engine.cli.functions import all_names
from engine.cli.output import Output, Raw, check_raw, coloured, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.cli.trigger import trigger_id_of
from engine.deploy.client import Client, path_of
from engine.errors import UnknownInvocation
from engine.model.urn import short_name

Times = tuple[tuple[str, str], ...]
SHOWN: Times = (
    ("function_urn", "function"),
    ("source", "source"),
    ("trigger_id", "trigger"),
    ("caused_by", "cause"),
    ("priority", "priority"),
    ("accept_time", "accepted"),
    ("due_time", "due"),
    ("start_time", "started"),
    ("end_time", "ended"),
    ("attempt", "attempts"),
    ("payload", "event"),
    ("result", "result"),
)
OPTIONAL = {"trigger_id", "caused_by"}


def invocations(
    name: str | None = None,
    /,
    *,
    status: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    limit: int = 20,
    hours: float = 1.0,
    trigger: str = "",
    raw: Raw = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List asynchronous invocations, newest first.

    Parameters
    ----------
    name
        Name or URN of the function. [default: all functions]
    status
        WAIT, RUNNING, SUCCESS, FAIL or DISCARD. Repeat for several.
    limit
        Maximum number of invocations, up to 500 of a function.
    hours
        Hours to look back.
    trigger
        Id or name of the trigger that caused them.
    raw
        Print control characters unchanged. Only for files and pipes.
    """
    check_raw(raw)
    client = target.client()
    names = [name] if name else all_names(client)
    trigger = trigger and trigger_id_of(client, trigger)
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - hours * 3600))
    found: list[dict[str, Any]] = []
    for one in names:
        query = {"status": ",".join(status).upper(), "limit": limit, "query_begin_time": begin}
        page = client.get(path_of(one, "/async-invocations"), **query, trigger_id=trigger)
        found += [{"function": short_name(one), **item} for item in page["invocations"]]
    # Request ids start with the time of acceptance.
    found = sorted(found, key=lambda item: str(item["request_id"]), reverse=True)[:limit]
    if target.json:
        print_json(found)
    elif not found:
        back = "hour" if hours == 1 else f"{hours:g} hours"
        Output().print(f"No invocations in the last {back}.", style="dim")
    else:
        print_table(("REQUEST ID", "FUNCTION", "STATUS", "STARTED", "ERROR"), map(_row, found), raw=raw)


def show(request_id: str, /, *, function: str | None = None, raw: Raw = False, target: Target = DEFAULT_TARGET) -> None:
    """Show the complete state of an invocation.

    Parameters
    ----------
    request_id
        Request id of the invocation, which the engine returned on acceptance.
    function
        Name or URN of its function. [default: search all functions]
    raw
        Print control characters unchanged. Only for files and pipes.
    """
    check_raw(raw)
    _, record = find_invocation(target.client(), request_id, function)
    if target.json:
        print_json(record)
        return
    _print_record(Output(raw=raw), record)


def _print_record(output: Output, record: dict[str, Any]) -> None:
    paused = " (paused)" if record.get("paused") else ""
    output.print(f"[bold]{record['request_id']}[/] {coloured(record['status'])}{paused}")
    for field, label in SHOWN:
        if field not in record and field not in OPTIONAL:
            output.print(f"  {label:<9} (not shown to the role of these credentials)", markup=False)
        elif record.get(field) not in (None, ""):
            output.data(f"  {label:<9} {_indented(str(record[field]))}", style="")
    if record.get("ordering_key"):
        held = " (held: an earlier invocation of the key has not ended)" if record["held"] else ""
        output.data(f"  order key {_indented(record['ordering_key'])}{held}", style="")
    if record["error_code"]:
        output.data(f"  error     {record['error_code']} {_indented(record['error_message'])}", style="red")
    elif record["error_message"]:
        output.data(f"  note      {_indented(record['error_message'])}", style="yellow")
    if "progress" in record:
        output.data(f"  progress  {_progress(record['progress'])}", style="cyan")
    for attempt in record["attempts"]:
        description = f"{attempt['start_time']} {attempt['error_code']} {_indented(attempt['error_message'])}"
        output.data(f"  attempt {attempt['attempt']} {description}", style="yellow")
        if "progress" in attempt:
            output.data(f"            {_progress(attempt['progress'])}", style="")
        if "instance" in attempt:
            output.data(f"            instance {attempt['instance']}", style="")
        if "decision" in attempt:
            output.data(f"            {_indented(attempt['decision']['text'])}", style="")
    if record.get("log"):
        output.print("  log")
        lines = record["log"].removesuffix("\n").split("\n")
        output.data("\n".join(f"    {line}" for line in lines), style="dim")


def _progress(reported: dict[str, Any]) -> str:
    return f"{100 * reported['fraction']:.4g} % {reported['note']}".rstrip()


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 12)


def cancel(request_id: str, /, *, function: str | None = None, target: Target = DEFAULT_TARGET) -> None:
    """Cancel a waiting or running invocation.

    Parameters
    ----------
    request_id
        Request id of the invocation, which the engine returned on acceptance.
    function
        Name or URN of its function. [default: search all functions]
    """
    client = target.client()
    function, _ = find_invocation(client, request_id, function)
    body = json.dumps({"request_id": request_id, "type": "force"}).encode()
    client.send("POST", path_of(function, "/cancel"), body)
    if target.json:
        print_json({"cancelled": request_id})
    else:
        Output().print(f"[bold green]cancelled[/] {request_id}")


def find_invocation(client: Client, request_id: str, function: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name or URN of an invocation's function, and the invocation's state as the API returns it.

    If ``function`` is None, all functions of the project are searched. Raises UnknownInvocation if no searched function
    has the invocation, or ApiError if ``function`` is given and does not have it.
    """
    names = [function] if function else all_names(client)
    for name in names:
        read = client.get if function else client.find
        record = read(path_of(name, f"/async-invocations/{quote(request_id, safe='')}"))
        if record is not None:
            return name, record
    raise UnknownInvocation(request_id)


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    error = f"{item['error_code']} {item['error_message']}" if item["error_code"] else ""
    return (
        item["request_id"],
        item["function"],
        f"{item['status']} (paused)" if item.get("paused") else item["status"],
        item.get("start_time", "").replace("T", " "),
        error,
    )
