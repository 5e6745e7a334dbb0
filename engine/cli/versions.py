"""``functiond version`` and ``functiond alias``: published versions of a function, and names for them."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from engine.cli.options import Flag, Function, Texts
from engine.cli.output import Row, print_done, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.errors import UsageError

versions = App(name="version", help="List, publish and delete versions of a function.")
aliases = App(name="alias", help="List, create, update and delete aliases of a function.")

Alias = Annotated[str, Parameter(help="Name of the alias.")]


@versions.command(name="list")
def list_versions(function: Function, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the versions of a function, latest included."""
    published = target.client().get_all(path_of(function, "/versions"), "versions")
    print_list(published, "No versions.", _version_row, json=target.json)


@versions.command
def publish(
    function: Function, /, *, name: str = "", description: str = "", digest: str = "", target: Target = DEFAULT_TARGET
) -> None:
    """Publish the latest code and configuration of a function as a version, which never changes.

    Parameters
    ----------
    name
        Name of the version, such as v1. [default: made from the time]
    description
        Description of the version.
    digest
        Publish only if the code has this MD5, SHA-256 or SHA-512.
    """
    body = {"version": name, "description": description, "digest": digest}
    made = target.client().post(path_of(function, "/versions"), body)
    text = f"[bold green]published[/] version [bold]{made['version']}[/] of [bold]{made['func_name']}[/]"
    print_result(made, text, made["func_urn"], json=target.json)


@versions.command(name="delete")
def delete_version(function: Function, version: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a version, with its triggers and with the aliases whose main version it is.

    Parameters
    ----------
    version
        Name of the version.
    """
    client = target.client()
    urn: str = client.get(path_of(function, "/config"))["func_urn"]
    client.send("DELETE", path_of(":".join([*urn.split(":")[:7], version])))
    print_done("deleted", version, json=target.json, kind="version", function=function)


@aliases.command(name="list")
def list_aliases(function: Function, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the aliases of a function."""
    named = target.client().get(path_of(function, "/aliases"))
    print_list(named, "No aliases.", _alias_row, json=target.json)


@aliases.command
def create(
    function: Function,
    name: Alias,
    version: str,
    /,
    *,
    weight: Texts = (),
    description: str = "",
    target: Target = DEFAULT_TARGET,
) -> None:
    """Create an alias for a version, or for several with weights.

    Parameters
    ----------
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


@aliases.command
def update(
    function: Function,
    name: Alias,
    /,
    *,
    version: str | None = None,
    weight: Texts = (),
    no_weights: Flag = False,
    description: str | None = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change an alias. What is not given stays as it is.

    Parameters
    ----------
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


@aliases.command(name="delete")
def delete_alias(function: Function, name: Alias, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete an alias, with its triggers."""
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


def _version_row(version: dict[str, Any]) -> Row:
    changed, text = version["last_modified"].replace("T", " "), version.get("version_description", "")
    return {"VERSION": version["version"], "RUNTIME": version["runtime"], "CHANGED": changed, "DESCRIPTION": text}


def _alias_row(alias: dict[str, Any]) -> Row:
    others = [f"{version} {percent} %" for version, percent in alias.get("additional_version_weights", {}).items()]
    others += [f"{version} by rules" for version in alias.get("additional_version_strategy", {})]
    head = {"ALIAS": alias["name"], "VERSION": alias["version"]}
    return {**head, "OTHER VERSIONS": ", ".join(others), "DESCRIPTION": alias["description"]}


def _print(alias: dict[str, Any], action: str, target: Target) -> None:
    text = f"[bold green]{action}[/] alias [bold]{alias['name']}[/] for version {alias['version']}"
    print_result(alias, text, alias["alias_urn"], json=target.json)
