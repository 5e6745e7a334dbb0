"""``functiond deliveries`` and ``redrive``: what cannot be delivered, and sending again what ended badly."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from engine.cli.client import Client, UsageError, path_of
from engine.cli.functions import short_name
from engine.cli.invocations import find_invocation
from engine.cli.target import HERE, Target
from engine.cli.words import Words, print_json, print_table


def deliveries(*, limit: int = 100, target: Target = HERE) -> None:
    """List the outcomes that could not be delivered: first what was given up, then what is tried again by itself.

    Parameters
    ----------
    limit
        How many of each at most, up to 500.
    """
    page = target.client().of_project.get("/deliveries", limit=limit)
    found = page["deliveries"] + page["retrying"]
    if target.json:
        print_json(found)
    elif not found:
        Words().print("Nothing was given up, and nothing is tried again.", style="dim")
    else:
        columns = ("DELIVERY", "FUNCTION", "REQUEST ID", "DESTINATION", "TRIES", "NEXT TRY", "ERROR")
        print_table(columns, map(_row, found))


def redrive(
    *ids: str,
    all: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    function: str | None = None,
    target: Target = HERE,
) -> None:
    """Send again what ended badly: deliveries that were given up, or invocations that failed.

    Parameters
    ----------
    ids
        Numbers of deliveries, or request ids of invocations that ended as FAIL or DISCARD.
    all
        All deliveries that were given up.
    function
        Name or URN of the invocations' function; without it, all are looked through.
    """
    if all is bool(ids):
        raise UsageError("name deliveries or request ids, or say --all")
    if all and function:
        raise UsageError("--all sends the deliveries of all functions again: leave --function out, or name request ids")
    client, done = target.client(), list[dict[str, Any]]()
    numbers = [int(one) for one in ids if one.isascii() and one.isdigit()]
    if numbers or all:
        body: dict[str, Any] = {"all": True} if all else {"delivery_ids": numbers}
        done += [{"delivery_id": one} for one in _send(client, "/deliveries/redrive", body)]
    for request_id in (one for one in ids if not (one.isascii() and one.isdigit())):
        name, _ = find_invocation(client, request_id, function)
        path = f"/functions{path_of(name, '/async-invocations/redrive')}"
        done += _send(client, path, {"request_ids": [request_id]})
    if target.json:
        print_json(done)
        return
    for one in done:
        sent = f" as {one['new_request_id']}" if "new_request_id" in one else ""
        Words().print(f"[bold green]sent again[/] {one.get('delivery_id', one.get('request_id'))}{sent}")
    if not done:
        Words().print("Nothing to send again: there is none that was given up; others are still tried.", style="dim")


def _send(client: Client, path: str, body: dict[str, Any]) -> list[Any]:
    answer = client.of_project.send("POST", path, json.dumps(body).encode())
    redriven: list[Any] = answer.json["redriven"]
    return redriven


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(item["delivery_id"]),
        short_name(item["func_urn"]),
        item["request_id"],
        item["destination"],
        str(item["tries"]),
        item["next_try"] or "given up",
        item["error"],
    )
