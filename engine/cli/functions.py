"""``functiond functions`` and ``functiond delete``."""

from __future__ import annotations

from typing import Any

from engine.cli.output import Output, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of
from engine.model.urn import short_name


def functions(*, target: Target = DEFAULT_TARGET) -> None:
    """List the functions of the project."""
    found = all_functions(target.client())
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No functions.", style="dim")
    else:
        columns = ("NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CHANGED", "STATE")
        print_table(columns, (_row(function) for function in found))


def delete(name: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a function. Its waiting invocations are discarded.

    Parameters
    ----------
    name
        Name or URN of the function.
    """
    target.client().send("DELETE", path_of(name))
    if target.json:
        print_json({"deleted": name})
    else:
        Output().print(f"[bold green]deleted[/] [bold]{name}[/]")


def all_functions(client: Client) -> list[dict[str, Any]]:
    return client.get_all("", "functions")


def all_names(client: Client) -> list[str]:
    """Return the URNs, without versions, of all functions of the client's project.

    Lists of invocations for such a URN include the invocations of every version.
    """
    return [":".join(one["func_urn"].split(":")[:7]) for one in all_functions(client)]


def _row(function: dict[str, Any]) -> tuple[str, ...]:
    return (
        short_name(function["func_urn"]),
        function["runtime"],
        function["handler"],
        f"{function['memory_size']} MB",
        f"{function['timeout']} s",
        function["last_modified"].replace("T", " "),
        "paused" if function.get("paused") else "",
    )
