"""``functiond pause`` and ``functiond resume``: stop and continue the work of a function, with intake open."""

from __future__ import annotations

from engine.cli.client import path_of
from engine.cli.output import Output, print_json
from engine.cli.target import DEFAULT_TARGET, Target


def pause(name: str, /, *, reason: str = "", target: Target = DEFAULT_TARGET) -> None:
    """Start no invocation of a function until ``functiond resume``.

    Asynchronous requests are still accepted, and wait. Synchronous ones are refused with the reason. Invocations that
    run go on. The pause survives restarts of the engine.

    Parameters
    ----------
    name
        Name or URN of the function.
    reason
        Text for the refused callers and for other operators.
    """
    _change(name, {"paused": True, "pause_reason": reason}, "[bold yellow]paused[/]", target)


def resume(name: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """End the pause of a function. Its waiting invocations start in their order.

    Parameters
    ----------
    name
        Name or URN of the function.
    """
    _change(name, {"paused": False}, "[bold green]resumed[/]", target)


def _change(name: str, changes: dict[str, object], done: str, target: Target) -> None:
    controls = target.client().patch(path_of(name, "/controls"), changes)
    if target.json:
        print_json(controls)
    else:
        Output().print(f"{done} [bold]{name}[/]")
