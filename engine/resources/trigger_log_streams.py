"""Check of triggers against the log streams to which the engine writes the states of invocations."""

from __future__ import annotations

from engine.errors import InvalidTrigger
from engine.functions.catalog import Catalog
from engine.logs.target import status_log_target, status_log_target_of
from engine.resources.bound_trigger import BoundTrigger


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
