"""Triggers as pages show them: rows of lists, with mode, schedule or address and state, and forms of their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import FunctiondError
from engine.http.api.routing import BASE, Call
from engine.http.api.triggers import ProjectTrigger, TriggersApi
from engine.http.console.forms import Form, errors_of
from engine.http.console.paths import GATEWAY, path_of_name
from engine.http.console.struct_forms import Data, Field, errors_beside, fields_of, read_struct
from engine.http.console.visibility import trigger_shown
from engine.model import Function, Mode
from engine.model.crontab import from_crontab
from engine.model.urn import short_name
from engine.protocols import Plugin
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.trigger_rules import EVENT_DATA

PREFIX = f"{EVENT_DATA}."
CHANGED = "This trigger was changed after you opened the page. Check the values, then save again."
BACKEND = "func_info"  #: option with the function of a gateway's API


class TriggerMode(Struct, frozen=True, kw_only=True):
    text: str
    reason: str = ""  #: reason why it cannot be changed; empty: it can


class TriggerRow(Struct, frozen=True, kw_only=True):
    trigger: BoundTrigger
    shown: ProjectTrigger
    mode: TriggerMode
    due: tuple[datetime, ...]  #: next due times of an active timer
    path: str  #: of the trigger's page
    function: str  #: short name
    function_path: str


class TriggerRows:
    def __init__(self, api: TriggersApi) -> None:
        self._api = api

    def row(self, call: Call, trigger: BoundTrigger) -> TriggerRow:
        shown = trigger_shown(call, self._api.project_trigger(trigger))
        return TriggerRow(
            trigger=trigger,
            shown=shown,
            mode=mode_of(trigger),
            due=tuple(map(datetime.fromisoformat, shown.source.due)),
            path=page_of_trigger(trigger),
            function=short_name(trigger.function),
            function_path=page_of_function(trigger),
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


class Kind(Struct, frozen=True, kw_only=True):
    """Kind of triggers to choose."""

    code: str  #: trigger type code
    about: str
    mode: str
    missing: str  #: what its sources lack on this machine; empty: nothing


def kind_of(code: str, plugin: Plugin, *, fixed: bool) -> Kind:
    """Return a kind of triggers. ``fixed``: their invocation mode cannot be changed."""
    display, changeable = plugin.display, not fixed and plugin.rules.mode is not None
    missing = ""
    if display.module and find_spec(display.module) is None:
        missing = f"Needs the extra {display.extra}: pip install '.[{display.extra}]' in the clone."
    return Kind(
        code=code,
        about=display.about.get(code, ""),
        mode="Synchronous or asynchronous" if changeable else kind_mode(code, fixed=fixed).text,
        missing=missing,
    )


def fields_of_kind(plugin: Plugin) -> tuple[Field, ...]:
    assert plugin.options is not None
    return fields_of(plugin.options, PREFIX)


def data_of(fields: Iterable[Field], form: Form, old: Mapping[str, Any] | None = None) -> Data:
    """Return the ``event_data`` of a form for the API, which needs names of APIs and knows no crontabs.

    Raises InvalidField.
    """
    data = read_struct(fields, form, old)
    if BACKEND in data and not data.get("name"):
        data["name"] = f"{data['req_method']} {data['path']}"
    if data.get("schedule_type") == "Crontab":
        data |= {"schedule_type": "Cron", "schedule": from_crontab(data["schedule"], f"{PREFIX}schedule")}
    return data


def errors_in_form(kind: str, fields: Iterable[Field], error: FunctiondError) -> Mapping[str, str]:
    """Return the error of a request by the name of its field. The kind, which the page names, is left out.

    Raises an AccessDenied again.
    """
    note = f" (trigger type {kind})"
    return {name: text.removesuffix(note) for name, text in errors_beside(fields, errors_of(error)).items()}


def create_path(function: Function, region: str, qualifier: str) -> str:
    """Return the percent-encoded path in the API of the triggers of a version or alias."""
    urn = str(replace(function.urn(region), qualifier=qualifier))
    return f"{BASE.format(project_id=function.project)}/triggers/{quote(urn, safe='')}"


def trigger_path(trigger: BoundTrigger) -> str:
    """Return the percent-encoded path of a trigger in the API."""
    triggers = f"{BASE.format(project_id=trigger.project)}/triggers"
    return f"{triggers}/{quote(trigger.function, safe='')}/{quote(trigger.kind, safe='')}/{trigger.id}"
