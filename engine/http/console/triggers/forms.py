"""Forms of triggers: fields of the options of a kind, errors beside them, and paths of the API's operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import FunctiondError
from engine.functions.catalog import Catalog
from engine.http.api.routing import BASE
from engine.http.console.forms import Form, errors_of
from engine.http.console.struct_forms import Data, Field, errors_beside, fields_of, read_struct
from engine.http.console.triggers.rows import kind_mode
from engine.model import Function
from engine.model.crontab import from_crontab
from engine.model.urn import LATEST
from engine.protocols import Plugin
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.trigger_rules import EVENT_DATA

PREFIX = f"{EVENT_DATA}."
CHANGED = "This trigger was changed after you opened the page. Check the values, then save again."


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
    """Return the ``event_data`` of a form for the API, which knows no crontabs. Raises InvalidField."""
    data = read_struct(fields, form, old)
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


def qualifiers_of(catalog: Catalog, function: Function) -> list[tuple[str, str]]:
    """Return the versions and aliases that triggers of a function may call, with their labels."""
    versions = [one.version for one in catalog.versions(function.function_id)[1:]]
    return [
        (LATEST, LATEST),
        *((f"!{one.name}", f"alias {one.name}") for one in catalog.aliases(function.function_id)),
        *((one, f"version {one}") for one in reversed(versions)),
    ]
