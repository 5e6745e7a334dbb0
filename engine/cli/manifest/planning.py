"""Plan of all changes that a manifest asks for, in an order in which each finds what it needs.

Topics and streams come first, then functions, versions and aliases, then settings and triggers, which may name any of
them. Deletions go the other way; those of triggers come before new triggers, which may need the same bucket or path.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import quote

from msgspec import UNSET, Struct

from engine.cli.client import Client, path_of
from engine.cli.manifest.changes import Change
from engine.cli.manifest.functions import function_changes
from engine.cli.manifest.kinds import Kinds
from engine.cli.manifest.project import Project
from engine.cli.manifest.references import References
from engine.cli.manifest.services import service_changes, service_deletions
from engine.cli.manifest.tables import Function, Manifest
from engine.cli.manifest.triggers import TriggerPlanner
from engine.cli.manifest.versions import alias_changes, control_changes, settings_changes, version_changes
from engine.model.urn import LATEST


class Plan(Struct, frozen=True, kw_only=True):
    changes: list[Change]
    unnamed: list[Change]  #: deletions of what the manifest does not name; empty if ``changes`` has them


def make_plan(manifest: Manifest, project: Project, *, prune: bool, send_secrets: bool) -> Plan:
    """Compare a manifest with a project. With ``prune``, delete what the manifest does not name.

    Raises UsageError for a reference to what neither exists nor is declared, and for data that no engine accepts.
    """
    references, kinds = References(project, manifest, prune=prune), Kinds(manifest.secrets)
    functions = list(manifest.functions.values())
    planner = TriggerPlanner(project, references, kinds, send_secrets=send_secrets)
    changes = list(service_changes(manifest, project))
    changes += [change for one in functions for change in function_changes(one, project)]
    changes += [change for one in functions for change in version_changes(one, project)]
    changes += [change for one in functions for change in alias_changes(one, project, prune=prune)]
    changes += [change for one in functions for change in settings_changes(one, project, references, kinds)]
    changes += [change for one in functions for change in control_changes(one, project)]
    plans = [planner.plan(one) for one in functions]
    new_triggers = [change for plan in plans for change in plan.changes]
    old_triggers = [change for plan in plans for change in plan.unnamed]
    deletions = list(_deletions(manifest, project))
    if prune:
        return Plan(changes=[*changes, *old_triggers, *new_triggers, *deletions], unnamed=[])
    return Plan(changes=[*changes, *new_triggers], unnamed=[*old_triggers, *deletions])


def _deletions(manifest: Manifest, project: Project) -> Iterator[Change]:
    """Yield the deletions of all that the manifest does not name, except triggers of functions that it names."""
    for function in manifest.functions.values():
        if function.name in project.functions:
            yield from _deletions_of(function, project)
    for name in project.functions:
        if name not in manifest.functions:
            yield _deletion(project.client, "function", name, path_of(name))
    yield from service_deletions(manifest, project)


def _deletions_of(function: Function, project: Project) -> Iterator[Change]:
    name, client = function.name, project.client
    for alias in project.aliases(name):
        if alias not in function.aliases:
            path = path_of(name, f"/aliases/{quote(alias, safe='')}")
            yield _deletion(client, "alias", f"{name}:!{alias}", path)
    if function.own.async_invoke_config is UNSET and LATEST in project.settings(name):
        yield _deletion(client, "asynchronous settings", name, path_of(name, "/async-invoke-config"))
    for version in project.versions(name):
        if version not in function.versions:
            urn = project.urn(name, version)
            yield _deletion(client, "version", f"{name}:{version}", path_of(urn))


def _deletion(client: Client, kind: str, name: str, path: str) -> Change:
    return Change(action="delete", kind=kind, name=name, run=partial(client.send, "DELETE", path))
