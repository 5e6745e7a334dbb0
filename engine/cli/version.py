"""``functiond version``: published versions of a function."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import Client, path_of

app = App(name="version", help="List, publish and delete versions of a function.")


@app.command(name="list")
def list_versions(function: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the versions of a function, latest included.

    Parameters
    ----------
    function
        Name or URN of the function.
    """
    found = all_versions(target.client(), function)
    if target.json:
        print_json(found)
        return
    rows = (
        (one["version"], one["runtime"], one["last_modified"].replace("T", " "), one.get("version_description", ""))
        for one in found
    )
    print_table(("VERSION", "RUNTIME", "CHANGED", "DESCRIPTION"), rows)


@app.command
def publish(
    function: str, /, *, name: str = "", description: str = "", digest: str = "", target: Target = DEFAULT_TARGET
) -> None:
    """Publish the latest code and configuration of a function as a version, which never changes.

    Parameters
    ----------
    function
        Name or URN of the function.
    name
        Name of the version, such as v1. [default: made from the time]
    description
        Description of the version.
    digest
        Publish only if the code has this MD5, SHA-256 or SHA-512.
    """
    body = {"version": name, "description": description, "digest": digest}
    made = target.client().post(path_of(function, "/versions"), body)
    if target.json:
        print_json(made)
    else:
        Output().print(f"[bold green]published[/] version [bold]{made['version']}[/] of [bold]{made['func_name']}[/]")
        Output().paste(made["func_urn"])


@app.command
def delete(function: str, version: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a version, with its triggers and with the aliases whose main version it is.

    Parameters
    ----------
    function
        Name or URN of the function.
    version
        Name of the version.
    """
    client = target.client()
    client.send("DELETE", path_of(version_urn(client, function, version)))
    print_done("deleted", version, json=target.json, kind="version", function=function)


def all_versions(client: Client, function: str) -> list[dict[str, Any]]:
    return client.get_all(path_of(function, "/versions"), "versions")


def version_urn(client: Client, function: str, qualifier: str) -> str:
    """Return the URN of a function's version, or of its alias if ``qualifier`` begins with ``!``."""
    urn: str = client.get(path_of(function, "/config"))["func_urn"]
    return ":".join([*urn.split(":")[:7], qualifier])
