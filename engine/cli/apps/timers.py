"""TIMER triggers of functions whose code names a schedule."""

from __future__ import annotations

from typing import Any

from engine.cli.client import Client, path_of

KIND, NAME = "TIMER", "from-code"  #: the name tells these triggers from others of the function


def set_timer(client: Client, function: str, options: dict[str, str] | None) -> str:
    """Create, change or delete the timer of a function, so that it has ``options``. Return its schedule as text."""
    path, of_project = f"/triggers{path_of(function)}", client.of_project
    found: list[dict[str, Any]] = of_project.get(path)
    timer = next((one for one in found if one["trigger_type_code"] == KIND and one["event_data"]["name"] == NAME), None)
    one = "" if timer is None else f"{path}/{KIND}/{timer['trigger_id']}"
    if options is None:
        if timer is not None:
            of_project.send("DELETE", one)
        return ""
    if timer is None:
        of_project.post(path, {"trigger_type_code": KIND, "event_data": options})
    elif any(timer["event_data"].get(name) != value for name, value in options.items()):
        of_project.put(one, {"event_data": options})
    return options["schedule"]
