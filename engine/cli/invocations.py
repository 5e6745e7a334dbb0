"""``functiond invocations``, ``show``, ``explain``, ``cancel`` and ``purge``: asynchronous invocations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from engine.cli.options import Codes, Flag, Function, Raw, Texts
from engine.cli.output import Output, Row, check_raw, coloured, print_json, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.cli.triggers import trigger_id_of
from engine.deploy.client import Client, path_of
from engine.deploy.progress import status_line
from engine.errors import UnknownInvocation
from engine.model.urn import short_name

RequestId = Annotated[str, Parameter(help="Request id of the invocation, which the engine returned on acceptance.")]
Searched = Annotated[str | None, Parameter(help="Name or URN of its function. [default: search all functions]")]
Times = tuple[tuple[str, str], ...]
SHOWN: Times = (
    ("function_urn", "function"),
    ("source", "source"),
    ("trigger_id", "trigger"),
    ("caused_by", "cause"),
    ("parent", "parent"),
    ("priority", "priority"),
    ("accept_time", "accepted"),
    ("due_time", "due"),
    ("start_time", "started"),
    ("end_time", "ended"),
    ("attempt", "attempts"),
    ("payload", "event"),
    ("result", "result"),
)
GROUP: Times = (
    ("message", "note"),
    ("create_time", "created"),
    ("end_time", "ended"),
    ("request_id", "then"),
)
OPTIONAL = {"trigger_id", "caused_by", "parent"}
TREE = 50  #: lines of a tree of calls
LEVELS = 5


def invocations(
    name: str | None = None,
    /,
    *,
    status: Texts = (),
    limit: int = 20,
    hours: float = 1.0,
    trigger: str = "",
    parent: str = "",
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
    parent
        Request id of the invocation that queued them.
    """
    check_raw(raw)
    client = target.client()
    names = [name] if name else _all_names(client)
    trigger = trigger and trigger_id_of(client, trigger)
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - hours * 3600))
    listed: list[dict[str, Any]] = []
    for function in names:
        query = {"status": ",".join(status).upper(), "limit": limit, "query_begin_time": begin}
        page = client.get(path_of(function, "/async-invocations"), **query, trigger_id=trigger, parent=parent)
        listed += [{"function": short_name(function), **item} for item in page["invocations"]]
    # Request ids start with the time of acceptance.
    listed = sorted(listed, key=lambda item: str(item["request_id"]), reverse=True)[:limit]
    none = f"No invocations in the last {'hour' if hours == 1 else f'{hours:g} hours'}."
    print_list(listed, none, _row, json=target.json, raw=raw)


def show(
    request_id: RequestId, /, *, function: Searched = None, raw: Raw = False, target: Target = DEFAULT_TARGET
) -> None:
    """Show the complete state of an invocation with the calls that it has queued, or the progress of a group."""
    check_raw(raw)
    client, output = target.client(), Output(raw=raw)
    try:
        _, record = find_invocation(client, request_id, function)
    except UnknownInvocation:
        record = client.of_project.find(f"/groups/{quote(request_id, safe='')}")
        if record is None:
            raise
    if target.json:
        print_json(record)
    elif "group_id" in record:
        output.print(f"[bold]{record['group_id']}[/] {coloured(record['state'])}")
        output.data(f"  members   {_members(record)}", style="cyan")
        for field, label in GROUP:
            if record.get(field):
                output.data(f"  {label:<9} {_indented(record[field])}", style="")
    else:
        _print_record(output, record)
        if record.get("children"):
            output.print(f"  calls     {record['children']:,}")
            for line in _tree(client.of_project, record):
                output.data(f"    {line}", style="")


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
    if "group" in record:
        output.data(f"  group     {record['group']['id']}, place {record['group']['place']}", style="")
    if "waits_for" in record:
        label = "waits for" if record["status"] == "WAIT" else "followed "
        output.data(f"  {label} {_members(record['waits_for'])}", style="cyan")
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
            node = f" on node {attempt['node']}" if "node" in attempt else ""
            output.data(f"            instance {attempt['instance']}{node}", style="")
        if "decision" in attempt:
            output.data(f"            {_indented(attempt['decision']['text'])}", style="")
    if record.get("log"):
        output.print("  log")
        lines = record["log"].removesuffix("\n").split("\n")
        output.data("\n".join(f"    {line}" for line in lines), style="dim")


def _members(group: dict[str, Any]) -> str:
    total = f"{group['stored']:,} so far" if group["total"] is None else f"{group['total']:,}"
    failed = f", {group['failed']:,} failed" if group["failed"] else ""
    return f"{group['done']:,} / {total} ended{failed}"


def _tree(client: Client, root: dict[str, Any]) -> Iterator[str]:
    """Yield lines for the calls below an invocation, those near it first: up to ``TREE`` calls on ``LEVELS`` levels."""
    pages: dict[str, list[dict[str, Any]]] = {}
    parents, left = [root], TREE
    for _ in range(LEVELS):
        for parent in parents:
            if parent["children"] and left:
                path = f"/async-invocations/{parent['request_id']}/children"
                pages[parent["request_id"]] = client.get(path, limit=left)["invocations"]
                left -= len(pages[parent["request_id"]])
        parents = [child for parent in parents for child in pages.get(parent["request_id"], ())]

    def below(parent: dict[str, Any], indent: str) -> Iterator[str]:
        for child in pages[parent["request_id"]]:
            opened = child["request_id"] in pages
            calls = f"  {child['children']:,} calls" if child["children"] and not opened else ""
            error = f"  {child['error_code']} {child['error_message']}" if child["error_code"] else ""
            yield f"{indent}{child['request_id']}  {child['function']}  {child['status']}{calls}{_indented(error)}"
            if opened:
                yield from below(child, f"{indent}  ")
        if (more := parent["children"] - len(pages[parent["request_id"]])) > 0:
            yield f"{indent}… {more:,} more"

    return below(root, "")


def _progress(reported: dict[str, Any]) -> str:
    return f"{100 * reported['fraction']:.4g} % {reported['note']}".rstrip()


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 12)


def explain(request_id: RequestId, /, *, function: Searched = None, target: Target = DEFAULT_TARGET) -> None:
    """Show why an invocation waits, and how many invocations of its function start before it."""
    client = target.client()
    name, record = find_invocation(client, request_id, function)
    told = client.get(path_of(name, f"/async-invocations/{record['request_id']}/explain"))
    if target.json:
        print_json(told)
        return
    output = Output()
    output.print(f"[bold]{told['request_id']}[/] {coloured(told['status'])}")
    for reason in told["reasons"]:
        output.data(f"  {reason['reason']:<9} {reason['text']}", style="")
    if told["status"] == "WAIT" and not told["reasons"]:
        output.print("  It starts next.", style="dim")


def cancel(
    request_id: RequestId, /, *, tree: Flag = False, function: Searched = None, target: Target = DEFAULT_TARGET
) -> None:
    """Cancel a waiting or running invocation.

    Parameters
    ----------
    tree
        Cancel also all calls below it that have not ended: those that it has queued, those that they have, and so on.
    """
    client = target.client()
    function, _ = find_invocation(client, request_id, function)
    if tree:
        count = _cancel_tree(client.of_project, request_id, quiet=target.json)
        print_result(
            {"cancelled": count}, f"[bold green]cancelled[/] {count:,} of the tree of {request_id}", json=target.json
        )
        return
    client.post(path_of(function, "/cancel"), {"request_id": request_id, "type": "force"})
    print_result({"cancelled": request_id}, f"[bold green]cancelled[/] {request_id}", json=target.json)


def _cancel_tree(client: Client, request_id: str, *, quiet: bool) -> int:
    count, more = 0, True
    with status_line("cancelled", quiet=quiet) as show:
        while more:
            step = client.post(f"/async-invocations/{request_id}/cancel-tree", {})
            count, more = count + step["cancelled"], step["more"]
            show(f"{count:,}")
    return count


def purge(
    name: Function,
    /,
    *,
    running: Flag = False,
    source: str = "",
    error_code: Codes = (),
    target: Target = DEFAULT_TARGET,
) -> None:
    """Cancel the waiting invocations of a function, of those that were accepted before the command started.

    They end as FAIL with code 4208, stay in the lists, and reach no destination. Pause the function first if none of
    them may start meanwhile.

    Parameters
    ----------
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
        for ended in _purge_steps(client, name, body):
            count += ended
            show(f"{count:,}")
    print_result({"cancelled": count}, f"[bold green]cancelled[/] {count} of [bold]{name}[/]", json=target.json)


def _purge_steps(client: Client, name: str, body: dict[str, Any]) -> Iterator[int]:
    """Make steps until no more invocations are left. Yield how many each has ended."""
    ended = True
    while ended:  # another pass finds those that a pass has left out
        ended, marker = False, "0"
        while marker:
            step = client.post(path_of(name, "/async-invocations/cancel"), {**body, "marker": marker})
            marker = step["next_marker"]
            ended = ended or bool(step["cancelled"])
            yield len(step["cancelled"])


def find_invocation(client: Client, request_id: str, function: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name or URN of an invocation's function, and the invocation's state as the API returns it.

    If ``function`` is None, all functions of the project are searched. Raises UnknownInvocation if no searched function
    has the invocation, or ApiError if ``function`` is given and does not have it.
    """
    for name in [function] if function else _all_names(client):
        read = client.get if function else client.find
        record = read(path_of(name, f"/async-invocations/{quote(request_id, safe='')}"))
        if record is not None:
            return name, record
    raise UnknownInvocation(request_id)


def _all_names(client: Client) -> list[str]:
    """Return the URNs, without versions, of all functions of the client's project.

    Lists of invocations for such a URN include the invocations of every version.
    """
    return [":".join(function["func_urn"].split(":")[:7]) for function in client.get_all("", "functions")]


def _row(item: dict[str, Any]) -> Row:
    error = f"{item['error_code']} {item['error_message']}" if item["error_code"] else ""
    return {
        "REQUEST ID": item["request_id"],
        "FUNCTION": item["function"],
        "STATUS": f"{item['status']} (paused)" if item.get("paused") else item["status"],
        "STARTED": item.get("start_time", "").replace("T", " "),
        "ERROR": error,
    }
