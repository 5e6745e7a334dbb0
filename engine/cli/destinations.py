"""``functiond destinations``: list of destinations, with the state of each and the cause of its last failure."""

from __future__ import annotations

from typing import Any

from engine.cli.output import Output, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.model.urn import short_name

COLUMNS = ("FUNCTION", "ON", "DESTINATION", "STATE", "FAILURES", "NEXT TRY", "PROBLEM")


def destinations(*, target: Target = DEFAULT_TARGET) -> None:
    """List the destinations of all functions, with their states since the engine started."""
    found = target.client().of_project.get_all("/destinations", "destinations")
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No destinations.", style="dim")
    else:
        print_table(COLUMNS, map(_row, found))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        short_name(one["func_urn"]),
        one["condition"],
        one["destination"],
        one["state"],
        str(one["failures"]),
        one["next_try"].replace("T", " "),
        one["problem"],
    )
