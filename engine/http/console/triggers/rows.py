"""Rows of the lists of triggers: invocation mode, name, schedule or address, next due time, state of the source."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from engine.http.api.routing import Call
from engine.http.api.triggers import ProjectTrigger, TriggersApi
from engine.http.console.paths import GATEWAY, path_of_name
from engine.http.console.visibility import trigger_shown
from engine.model import Mode
from engine.model.urn import short_name
from engine.protocols import Plugin
from engine.resources.bound_trigger import BoundTrigger, name_of

BACKEND = "func_info"  #: option with the function of a gateway's API


class TriggerMode(Struct, frozen=True, kw_only=True):
    text: str
    reason: str = ""  #: reason why it cannot be changed; empty: it can


class TriggerRow(Struct, frozen=True, kw_only=True):
    trigger: BoundTrigger
    shown: ProjectTrigger
    name: str
    mode: TriggerMode
    subject: str  #: schedule, address or topic
    address: str  #: URL of a gateway's API; empty for other kinds
    due: tuple[datetime, ...]  #: next due times of an active timer
    path: str  #: of the trigger's page
    function: str  #: short name
    function_path: str


class TriggerRows:
    def __init__(self, api: TriggersApi) -> None:
        self._api = api

    def row(self, call: Call, trigger: BoundTrigger) -> TriggerRow:
        shown = trigger_shown(call, self._api.project_trigger(trigger))
        address = str(shown.event_data.get("invoke_url", ""))
        function_path = page_of_function(trigger)
        return TriggerRow(
            trigger=trigger,
            shown=shown,
            name=name_of(trigger),
            mode=mode_of(trigger),
            subject=shown.subject,
            address=address,
            due=tuple(map(datetime.fromisoformat, shown.source.due)),
            path=page_of_trigger(trigger),
            function=short_name(trigger.function),
            function_path=function_path,
        )


def is_gateway(plugin: Plugin) -> bool:
    """Return whether triggers of a plugin are APIs of a gateway, whose invocation mode is that of their backend."""
    return plugin.rules.mode_option == BACKEND


def mode_of(trigger: BoundTrigger) -> TriggerMode:
    if trigger.options is None:
        return TriggerMode(text="Unknown")
    if trigger.mode is Mode.SYNC:
        return TriggerMode(text="Synchronous")
    return kind_mode(trigger.kind, fixed=trigger.mode_fixed)


def kind_mode(kind: str, *, fixed: bool) -> TriggerMode:
    """Return the mode of asynchronous triggers of a kind."""
    if not fixed:
        return TriggerMode(text="Asynchronous")
    reason = f"{kind} triggers are invoked asynchronously by default, and the invocation mode cannot be changed."
    return TriggerMode(text="Asynchronous (fixed)", reason=reason)


def page_of_function(trigger: BoundTrigger) -> str:
    """Return the percent-encoded path of the page of a trigger's function."""
    return path_of_name(trigger.project, short_name(trigger.function))


def page_of_trigger(trigger: BoundTrigger) -> str:
    """Return the percent-encoded path of a trigger's page: of its gateway's page if it has one."""
    if is_gateway(trigger.plugin) and trigger.options is not None:
        return GATEWAY.format(project_id=trigger.project, gateway_id=trigger.id)
    return f"{page_of_function(trigger)}/configuration/triggers/{trigger.id}"
