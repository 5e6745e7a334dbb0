"""Limits on the number of triggers, and conflicts of a trigger with other triggers or with streams of states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.errors import InvalidTrigger, TooManyTriggers, TriggerClash, TriggerExists
from engine.functions.catalog import Catalog
from engine.logs.target import status_log_target, status_log_target_of
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.trigger_rules import same_key

TRIGGERS = 10  #: triggers per version or alias, of all kinds with ``TriggerRules.limited`` together (FunctionGraph)


def check_room(new: BoundTrigger, others: Sequence[BoundTrigger]) -> None:
    """Raise if a new trigger cannot be added beside the others of its project.

    Raises TooManyTriggers if its version, alias or project has the maximum; otherwise the errors of ``check_others``.
    """
    rules = new.plugin.rules
    if rules.limited:
        limited = [other.kind for other in others if other.plugin.rules.limited and _same_version(new, other)]
        if len(limited) >= TRIGGERS:
            kinds = ", ".join(sorted({new.kind, *limited}))
            raise TooManyTriggers(new.kind, TRIGGERS, f"a version or alias, of types {kinds} together,")
    if rules.per_project and sum(other.kind == new.kind for other in others) >= rules.per_project:
        raise TooManyTriggers(new.kind, rules.per_project, f"a project, of type {new.kind},")
    check_others(new, others)


def check_others(new: BoundTrigger, others: Sequence[BoundTrigger]) -> None:
    """Raise if a trigger conflicts with another trigger of its kind in its project.

    Raises TriggerExists if such a trigger of the same version or alias has the same values in the fields that must be
    unique; TriggerClash if the plugin does not allow both triggers together.
    """
    for other in others:
        if other.kind == new.kind and other.id != new.id and other.options is not None:
            _check_pair(new, other)


def check_claims(new: BoundTrigger, others: Iterable[BoundTrigger]) -> None:
    """Raise TriggerClash if a trigger would take events of one of another project, about which the error is silent."""
    for other in others:
        if other.plugin is new.plugin and other.project != new.project and other.options is not None:
            taken = new.plugin.rules.taken
            if taken is not None and (problem := taken(new.kind, new.options, other.kind, other.options)):
                raise TriggerClash(new.kind, problem)


def _check_pair(new: BoundTrigger, other: BoundTrigger) -> None:
    rules = new.plugin.rules
    key = same_key(new.plugin, new.options)
    same_function = new.function_id == other.function_id
    if key and _same_version(new, other) and key == same_key(other.plugin, other.options):
        fields = ", ".join(f"{name} {value}" for name, value in zip(rules.unique, key, strict=True))
        raise TriggerExists(new.kind, fields, other.id)
    if rules.conflicts is not None and rules.conflicts(new.options, other.options, same_function):
        taken = f"the {new.kind} trigger {other.id} of {other.function} already uses a resource that this trigger needs"
        raise TriggerClash(new.kind, taken)


def _same_version(new: BoundTrigger, other: BoundTrigger) -> bool:
    return (new.function_id, new.qualifier) == (other.function_id, other.qualifier)


def check_log_streams(trigger: BoundTrigger, catalog: Catalog) -> None:
    """Raise InvalidTrigger if the plugin refuses the trigger because of a status stream of its function's project."""
    refuse = trigger.plugin.rules.refuse
    if refuse is None:
        return
    streams = {status_log_target(trigger.project)}
    for function in catalog.all():
        settings = catalog.settings_of(function.function_id, function.version)
        if function.project == trigger.project and settings is not None and settings.status_log:
            streams.add(status_log_target_of(function.project, settings.details))
    if refused := refuse(trigger.options, streams):
        field, reason = refused
        raise InvalidTrigger(trigger.kind, f"event_data.{field}", trigger.given.get(field), reason)
