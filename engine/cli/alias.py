"""``functiond alias``: names for versions of a function."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.errors import UsageError

app = App(name="alias", help="List, create, update and delete aliases of a function.")

Weights = Annotated[tuple[str, ...], Parameter(name="--weight", negative="", show_default=False)]


@app.command(name="list")
def list_aliases(function: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the aliases of a function.

    Parameters
    ----------
    function
        Name or URN of the function.
    """
    found = target.client().get(path_of(function, "/aliases"))
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No aliases.", style="dim")
    else:
        print_table(("ALIAS", "VERSION", "OTHER VERSIONS", "DESCRIPTION"), map(_row, found))


@app.command
def create(
    function: str,
    name: str,
    version: str,
    /,
    *,
    weight: Weights = (),
    description: str = "",
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create an alias for a version, or for several with weights.

    Parameters
    ----------
    function
        Name or URN of the function.
    name
        Name of the alias.
    version
        Main version of the alias.
    weight
        Share of requests for another version, as VERSION=PERCENT. Repeat for several.
    description
        Description of the alias.
    """
    body = {
        "name": name,
        "version": version,
        "description": description,
        "additional_version_weights": _weights(weight) or None,
    }
    made = target.client().post(path_of(function, "/aliases"), body)
    _print(made, "created", target)


@app.command
def update(
    function: str,
    name: str,
    /,
    *,
    version: str | None = None,
    weight: Weights = (),
    no_weights: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    description: str | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change an alias. What is not given stays as it is.

    Parameters
    ----------
    function
        Name or URN of the function.
    name
        Name of the alias.
    version
        Main version of the alias.
    weight
        Share of requests for another version, as VERSION=PERCENT. Repeat for several. Replaces all weights.
    no_weights
        Remove all weights.
    description
        Description of the alias.
    """
    if version is None and not weight and not no_weights and description is None:
        raise UsageError("nothing to change: give --version, --weight, --no-weights or --description")
    if weight and no_weights:
        raise UsageError("--weight does not go with --no-weights")
    client, path = target.client(), path_of(function, f"/aliases/{quote(name, safe='')}")
    # PUT replaces the whole alias.
    kept = ("version", "description", "additional_version_weights", "additional_version_strategy")
    body = {field: value for field, value in client.get(path).items() if field in kept}
    given = {"version": version, "description": description}
    body |= {field: value for field, value in given.items() if value is not None}
    if weight or no_weights:
        body["additional_version_weights"] = _weights(weight)
    _print(client.put(path, body), "updated", target)


@app.command
def delete(function: str, name: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete an alias, with its triggers.

    Parameters
    ----------
    function
        Name or URN of the function.
    name
        Name of the alias.
    """
    target.client().send("DELETE", path_of(function, f"/aliases/{quote(name, safe='')}"))
    print_done("deleted", name, json=target.json, kind="alias", function=function)


def _weights(pairs: tuple[str, ...]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for pair in pairs:
        version, _, percent = pair.partition("=")
        if not version or not (percent.isascii() and percent.isdigit()):
            raise UsageError(f"--weight is {pair}: it must look like VERSION=PERCENT, such as v2=10")
        weights[version] = int(percent)
    return weights


def _row(alias: dict[str, Any]) -> tuple[str, ...]:
    others = [f"{version} {percent} %" for version, percent in alias.get("additional_version_weights", {}).items()]
    others += [f"{version} by rules" for version in alias.get("additional_version_strategy", {})]
    return alias["name"], alias["version"], ", ".join(others), alias["description"]


def _print(alias: dict[str, Any], action: str, target: Target) -> None:
    if target.json:
        print_json(alias)
    else:
        Output().print(f"[bold green]{action}[/] alias [bold]{alias['name']}[/] for version {alias['version']}")
        Output().paste(alias["alias_urn"])
