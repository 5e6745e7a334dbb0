"""``functiond clock``: show whether the engine trusts its clock, and accept the clock."""

from __future__ import annotations

from typing import Any, Literal

from engine.cli.output import Output, print_json
from engine.cli.target import DEFAULT_TARGET, Target


def clock(action: Literal["show", "accept"] = "show", /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show whether the engine trusts its clock, or accept the clock.

    After a start whose clock is far ahead of the newest invocation, and after the clock was set far ahead, nothing
    expires until the clock is accepted or ten minutes have passed. If the clock is wrong, correct it instead.

    Parameters
    ----------
    action
        ``accept``: trust the clock from now on, so that data that is too old by it is discarded.
    """
    client = target.client().of_project
    state = client.send("POST", "/clock/accept").json if action == "accept" else client.get("/clock")
    if target.json:
        print_json(state)
        return
    for line in _lines(state):
        Output().print(line)


def _lines(state: dict[str, Any]) -> list[str]:
    if state["trusted"]:
        return [f"The engine trusts its clock: [bold]{state['time']}[/]."]
    days, minutes = state["ahead"] // 86_400, -(-state["ends_in"] // 60)
    return [
        f"[bold yellow]The clock is in doubt:[/] it shows {state['time']}, {days} days after the last trusted time"
        f" ({state['reference']}).",
        f"Nothing expires for {minutes} more minutes. If the clock is right: functiond clock accept",
        "If it is wrong: correct it. The engine notices that within 30 s.",
    ]
