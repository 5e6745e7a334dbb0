"""Findings of ``functiond doctor``, and those about a running engine, which it asks over its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from engine.deploy.client import ApiError, Client
from engine.model.urn import short_name

WAIT = 5.0  #: seconds for which an engine may take to tell its health
_CREDENTIALS = (
    "set FUNCTIOND_TOKEN, or FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY, to those of this engine, and try again"
)
#: Next step by part of the health. The texts of other parts name theirs themselves.
_ADVICE = {
    "journal": "look at the disk of the data directory (df, dmesg): a failing or full disk stops all writes",
    "loop": "look for `event loop stalled` in the engine's log: its stack names the code, such as that of a plugin",
    "intake": "new work is refused until then; accepted work goes on",
    "clock": "correct the clock, or run: functiond clock accept",
    "plugins": "look at the engine's log",
}
_STATUSES = frozenset({"status", "isolation", "http_network"})  #: fields of health and readiness that are no problems


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong, or worth knowing: where, what, and the next step."""

    where: str
    problem: str
    advice: str
    serious: bool = True  #: False: the engine works all the same


def of_engine(client: Client) -> Iterator[Finding]:
    """Yield what is wrong with a running engine and the client's project.

    Raises the errors of ``Client.probe`` if it cannot be asked.
    """
    health, ready = client.probe("/healthz", WAIT), client.probe("/readyz", WAIT)
    states = _fields(health.body), _fields(ready.body)
    if not all(states):
        advice = "name the address of an engine by --url"
        yield Finding(where="engine", problem="another program replies at this address", advice=advice)
        return
    yield from _health(*states)
    try:
        yield from _triggers(client.of_project)
        yield from _destinations(client.of_project)
        yield from _deliveries(client.of_project)
        yield from _expired(client.of_project)
    except ApiError as error:
        advice = _CREDENTIALS if error.status == 401 else "use credentials of this project with the role read or admin"
        yield Finding(where="project", problem=f"cannot be looked at: {error}", advice=advice)


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of health or readiness; none if the reply is that of another program."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and "status" in found else {}


def _health(health: dict[str, Any], ready: dict[str, Any]) -> Iterator[Finding]:
    parts = {**ready, **health}
    for part in parts.keys() - _STATUSES:
        serious = health["status"] != "degraded" or part not in health
        yield Finding(where=part, problem=str(parts[part]), advice=_ADVICE.get(part, ""), serious=serious)
    if not parts.keys() - _STATUSES:
        for status in (health["status"], ready["status"]):
            if status not in ("ok", "ready"):
                yield Finding(
                    where="engine", problem=f"is {status}, and tells why to known clients", advice=_CREDENTIALS
                )


def _triggers(client: Client) -> Iterator[Finding]:
    for one in client.get_all("/triggers", "triggers"):
        source = one["source"]
        if source["problem"] or source["state"] == "failing":
            failing = source["state"] == "failing"
            again = f"is tried again at {source['next_try']}; " if failing else ""
            yield Finding(
                where=f"trigger {one['trigger_id']} ({one['trigger_type_code']} of {short_name(one['func_urn'])})",
                problem=source["problem"],
                advice=f"{again}correct the trigger's options, its plugin's settings, or the system that it reads",
                serious=failing,
            )


def _destinations(client: Client) -> Iterator[Finding]:
    for one in client.get_all("/destinations", "destinations"):
        if one["state"] != "ok":
            yield Finding(
                where=f"destination {one['destination']} {one['param']} of {short_name(one['func_urn'])}",
                problem=f"{one['problem']} ({one['failures']} failures in a row since {one['since']})",
                advice="outcomes wait and are tried again for a day; correct the destination, or the system behind it",
            )


def _expired(client: Client) -> Iterator[Finding]:
    for one in client.get("/function/report", type="expiredcount")["values"]:
        name, problem = short_name(one["key"]), f"{one['value']} events of the last day were too old to start"
        advice = f"raise its maximum age, or run them: functiond redrive --failed --status DISCARD --function {name}"
        yield Finding(where=f"function {name}", problem=f"{problem}, and discarded", advice=advice, serious=False)


def _deliveries(client: Client) -> Iterator[Finding]:
    count = client.get("/deliveries", limit=1)["count"]
    if count:
        yield Finding(
            where="deliveries",
            problem=f"{count} outcomes were given up",
            advice="see them with functiond deliveries, send them again with functiond redrive --all",
        )
