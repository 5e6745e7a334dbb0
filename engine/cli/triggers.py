"""``functiond triggers``: list of triggers, with the mode of each and the state of its source."""

from __future__ import annotations

from typing import Any

from engine.cli.output import Output, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.deploy.timers import due_text
from engine.model.urn import short_name

COLUMNS = (
    "TRIGGER ID",
    "TYPE",
    "FUNCTION",
    "STATE",
    "ACCEPTED",
    "REFUSED",
    "LOST",
    "LAG",
    "MODE",
    "NAME",
    "SCHEDULE OR ADDRESS",
    "NEXT DUE",
    "NEXT TRY",
    "PROBLEM",
)


def triggers(name: str | None = None, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List triggers, with the state of their sources and the number of events since the engine started.

    Parameters
    ----------
    name
        Name or URN of the function. [default: all functions]
    """
    client = target.client()
    found = client.of_project.get_all("/triggers", "triggers")
    if name:
        urn = _without_version(client.get(path_of(name, "/config"))["func_urn"])
        found = [one for one in found if _without_version(one["func_urn"]) == urn]
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No triggers.", style="dim")
    else:
        print_table(COLUMNS, map(_row, found))


def _without_version(urn: str) -> list[str]:
    return urn.split(":")[:7]


def _row(trigger: dict[str, Any]) -> tuple[str, ...]:
    source, version = trigger["source"], trigger["func_urn"].split(":", 7)[-1]
    return (
        trigger["trigger_id"],
        trigger["trigger_type_code"],
        short_name(trigger["func_urn"]) + ("" if version == "latest" else f" ({version})"),
        source["state"],
        str(source["accepted"]),
        str(source["refused"]),
        str(source["lost"]),
        str(sum(source["lag"].values())) if source["lag"] else "",
        _mode(trigger),
        trigger["name"],
        _address(trigger),
        due_text(source, 1),
        source["next_try"].replace("T", " "),
        source["problem"],
    )


def _mode(trigger: dict[str, Any]) -> str:
    mode = {"sync": "synchronous", "async": "asynchronous"}.get(trigger["mode"], "unknown")
    return f"{mode} (fixed)" if trigger["mode"] == "async" and trigger["mode_fixed"] else mode


def _address(trigger: dict[str, Any]) -> str:
    """Return the URL of a gateway's API; for other kinds the subject, and the path to which senders send events."""
    if url := trigger["event_data"].get("invoke_url"):
        return str(url)
    return " at ".join(filter(None, (trigger["subject"], trigger.get("path", ""))))
