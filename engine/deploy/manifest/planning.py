"""Plan of all changes that a manifest asks for, in an order in which each finds what it needs.

Topics and streams come first, then functions, versions and aliases, then settings and triggers, which may name any of
them. Deletions go the other way; those of triggers come before new triggers, which may need the same bucket or path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import quote

from msgspec import UNSET

from engine.deploy.client import app_of, claim_of, path_of
from engine.deploy.manifest.changes import Change, Plan, deletion
from engine.deploy.manifest.functions import function_changes
from engine.deploy.manifest.kinds import Kinds
from engine.deploy.manifest.project import Project, References
from engine.deploy.manifest.reading import Function, Manifest
from engine.deploy.manifest.services import service_changes, service_deletions
from engine.deploy.manifest.triggers import TriggerPlanner
from engine.deploy.manifest.versions import alias_changes, control_changes, settings_changes, version_changes
from engine.deploy.timers import FROM_CODE
from engine.model.urn import LATEST, short_name


def make_plan(
    manifest: Manifest, project: Project, *, prune: bool, send_secrets: bool, take_over: bool = False
) -> Plan:
    """Compare a manifest with a project. With ``prune``, delete what the manifest does not name.

    Functions of other apps than the manifest's are not deleted, and changed with ``take_over`` only. The manifest of an
    app is about its functions, their timers and paths only; those of earlier code are always deleted. Raises UsageError
    for a reference to what neither exists nor is declared, and for data that no engine accepts.
    """
    references, kinds = References(project, manifest, prune=prune and not manifest.app), Kinds(manifest.secrets)
    functions = list(manifest.functions.values())
    own = (name for name, function in project.functions.items() if app_of(function) == manifest.app)
    gone = [name for name in own if name not in manifest.functions]
    planner = TriggerPlanner(project, references, kinds, send_secrets=send_secrets)
    changes = list(service_changes(manifest, project))
    for function in functions:
        changes += function_changes(function, project, manifest.app, take_over=take_over)
    changes += [change for function in functions for change in version_changes(function, project)]
    changes += [change for function in functions for change in alias_changes(function, project, prune=prune)]
    changes += [change for function in functions for change in settings_changes(function, project, references, kinds)]
    changes += [change for function in functions for change in control_changes(function, project)]
    plans = [planner.plan(function) for function in functions]
    new_triggers = [change for plan in plans for change in plan.changes]
    old_triggers = [change for plan in plans for change in plan.unnamed]
    if manifest.app:
        old_triggers += [planner.deletion(each) for each in project.triggers if short_name(each["func_urn"]) in gone]
        new_triggers = [*(change for change in old_triggers if change.name.startswith(FROM_CODE)), *new_triggers]
        old_triggers = []
    deletions = list(_deletions(manifest, project, gone))
    if prune:
        return Plan(changes=[*changes, *old_triggers, *new_triggers, *deletions], unnamed=[])
    return Plan(changes=[*changes, *new_triggers], unnamed=[*old_triggers, *deletions])


def _deletions(manifest: Manifest, project: Project, gone: Iterable[str]) -> Iterator[Change]:
    """Yield the deletions of all that the manifest does not name, except triggers of functions that it names."""
    for function in manifest.functions.values() if not manifest.app else ():
        yield from _deletions_of(function, project)
    for name in gone:
        yield deletion(project.client, "function", name, path_of(name) + claim_of(manifest.app, take_over=False))
    if not manifest.app:
        yield from service_deletions(manifest, project)


def _deletions_of(function: Function, project: Project) -> Iterator[Change]:
    name, client = function.name, project.client
    for alias in project.aliases(name):
        if alias not in function.aliases:
            yield deletion(client, "alias", f"{name}:!{alias}", path_of(name, f"/aliases/{quote(alias, safe='')}"))
    if function.own.async_invoke_config is UNSET and LATEST in project.settings(name):
        yield deletion(client, "asynchronous settings", name, path_of(name, "/async-invoke-config"))
    for version in project.versions(name):
        if version not in function.versions:
            yield deletion(client, "version", f"{name}:{version}", path_of(project.urn(name, version)))
