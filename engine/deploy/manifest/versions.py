"""Changes to versions, aliases, asynchronous settings and controls of functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from engine.deploy.client import path_of
from engine.deploy.fields import expected
from engine.deploy.manifest.changes import Change, changes, part_of
from engine.deploy.manifest.kinds import Kinds
from engine.deploy.manifest.project import Data, Project, References
from engine.deploy.manifest.reading import AsyncTable, Function
from engine.errors import UsageError
from engine.model.urn import LATEST

#: Fields of an alias. PUT replaces the whole alias.
ALIAS = ("version", "description", "additional_version_weights", "additional_version_strategy")


def version_changes(function: Function, project: Project) -> Iterator[Change]:
    """Yield the changes that publish versions. A published version never changes."""
    existing = project.versions(function.name) if function.versions else {}
    for name, table in function.versions.items():
        if name not in existing:
            body = {"version": name, "description": table.description}
            run = partial(project.client.post, path_of(function.name, "/versions"), body)
            yield Change(action="create", kind="version", name=f"{function.name}:{name}", run=run)


def alias_changes(function: Function, project: Project, *, prune: bool) -> Iterator[Change]:
    """Yield the changes to aliases.

    Raises UsageError if an alias or a trigger names a version or alias that does not exist, or that ``prune`` deletes.
    """
    _check_names(function, project, prune=prune)
    existing = project.aliases(function.name) if function.aliases else {}
    path = path_of(function.name, "/aliases")
    for name, table in function.aliases.items():
        body: Data = msgspec.to_builtins(table)
        run, old = partial(project.client.post, path, {"name": name, **body}), None
        if name in existing:
            run, old = partial(project.client.put, f"{path}/{quote(name, safe='')}", body), alias_fields(existing[name])
        yield from changes("alias", f"{function.name}:!{name}", old, alias_fields(body), run)


def _check_names(function: Function, project: Project, *, prune: bool) -> None:
    """Check the versions that aliases name, and the versions and aliases that triggers name."""
    path, named = f"functions.{function.name}", list[tuple[str, str, str]]()
    for name, alias in function.aliases.items():
        others = [*(alias.additional_version_weights or ()), *(alias.additional_version_strategy or ())]
        named += [(f"{path}.aliases.{name}", "version", version) for version in (alias.version, *others)]
    for index, trigger in enumerate(function.own.triggers):
        kind = "alias" if trigger.qualifier.startswith("!") else "version"
        named.append((f"{path}.triggers[{index}].qualifier", kind, trigger.qualifier.removeprefix("!")))
    named = [entry for entry in named if entry[1:] != ("version", LATEST)]
    if not named:
        return
    existing = {"version": project.versions(function.name), "alias": project.aliases(function.name)}
    declared = {"version": function.versions.keys(), "alias": function.aliases.keys()}
    for where, kind, name in named:
        known = list(dict.fromkeys([*existing[kind], *declared[kind]]))
        if name not in known:
            raise UsageError(f"{where}: no {kind} {name} of {function.name}: {expected(name, known)}")
        if prune and name not in declared[kind]:
            raise UsageError(f"{where}: --prune would delete the {kind} {name}: declare it, or name another")


def alias_fields(alias: Data) -> Data:
    """Return the fields of an alias that a manifest has, without empty ones."""
    return {name: alias[name] for name in ALIAS if alias.get(name)}


def settings_changes(function: Function, project: Project, references: References, kinds: Kinds) -> Iterator[Change]:
    """Yield the changes to asynchronous settings of a function and its versions."""
    tables = {LATEST: function.own.async_invoke_config}
    tables |= {name: table.async_invoke_config for name, table in function.versions.items()}
    existing = project.settings(function.name)
    for qualifier, table in tables.items():
        if isinstance(table, AsyncTable):
            _check_destinations(table, references, kinds, f"functions.{function.name}.async_invoke_config")
            old = settings_fields(existing[qualifier]) if qualifier in existing else None
            new = settings_fields(body_of(table, references))
            name = function.name if qualifier == LATEST else f"{function.name}:{qualifier}"
            run = partial(_store_settings, project, function.name, qualifier, table, references)
            yield from changes("asynchronous settings", name, old, new, run)


def body_of(table: AsyncTable, references: References) -> Data:
    """Return asynchronous settings as the body of a request."""
    body: Data = msgspec.to_builtins(table)
    for spec in filter(None, body["destination_config"].values()):
        spec["param"] = json.dumps(references.param(spec["destination"], spec["param"]))
    body["destination_config"] = {name: spec for name, spec in body["destination_config"].items() if spec}
    return body


def settings_fields(settings: Data) -> Data:
    """Return asynchronous settings with a field for each destination, for comparison."""
    fields = {name: settings[name] for name in AsyncTable.__struct_fields__ if settings.get(name) not in (None, UNSET)}
    fields["retry_rules"] = list(settings.get("retry_rules") or ())
    for name, spec in fields.pop("destination_config", {}).items():
        if spec:
            fields[name] = {"destination": spec["destination"], "param": read_param(spec["param"])}
    return fields


def read_param(text: str) -> Data:
    param: Data = json.loads(text or "{}")
    return param


def control_changes(function: Function, project: Project) -> Iterator[Change]:
    if function.own.controls is not UNSET:
        new: Data = msgspec.to_builtins(function.own.controls)
        old = part_of(project.controls(function.name), new)
        run = partial(project.client.patch, path_of(function.name, "/controls"), new)
        yield from changes("controls", function.name, old, new, run)


def _store_settings(project: Project, function: str, qualifier: str, table: AsyncTable, references: References) -> Any:
    """Store asynchronous settings. Names that were of nothing when the plan was made have their URNs now."""
    path = path_of(project.urn(function, qualifier), "/async-invoke-config")
    return project.client.put(path, body_of(table, references))


def _check_destinations(table: AsyncTable, references: References, kinds: Kinds, path: str) -> None:
    for name in ("on_success", "on_failure"):
        if spec := getattr(table.destination_config, name):
            where = f"{path}.destination_config.{name}"
            try:
                param = references.param(spec.destination, spec.param)
            except UsageError as error:
                raise UsageError(f"{where}.param: {error}") from None
            if spec.destination.upper() != "FUNCTIONGRAPH":  # a function that the manifest creates has no URN yet
                kinds.check_destination(spec.destination, param, where)
