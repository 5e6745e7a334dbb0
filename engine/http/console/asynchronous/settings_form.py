"""Conversion between asynchronous settings, as the API has them, and the form of their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import FunctiondError, InvalidField
from engine.http.api.async_settings import AsyncSettingsBody
from engine.http.console.asynchronous.destination_forms import CONDITIONS, CONFIG, DestinationForms, ShownDestination
from engine.http.console.asynchronous.rule_rows import PREFIX, Row, rows_in, rows_of, rules_of
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.struct_fields import Field, fields_of
from engine.http.console.struct_forms import lost_secrets, missing_values, read_struct, shown_values, typed_values
from engine.logs.target import LogTarget, status_log_target
from engine.model.limits import EVENT_AGES

Settings = Mapping[str, Any]  #: body of a reply of the API
RULES = PREFIX.rstrip(".")
AGE = "max_async_event_age_in_seconds"
#: Fields of replies that requests do not have.
_REPLY_ONLY = ("func_urn", "created_time", "last_modified")
_WORDS = {
    "max_async_retry_attempts": (
        "Maximum retries",
        "0 to 3 further attempts after an error of the function. Retry rules and the error itself go first.",
    ),
    AGE: (
        "Maximum age (s)",
        "1 to 86,400; empty: 86,400. An older invocation is not tried again, and discarded if it still waits.",
    ),
    "enable_async_status_log": ("Write each state to the status log", ""),
    "log_group_id": ("Id of the group", ""),
    "log_group_name": ("Log group", ""),
    "log_stream_id": ("Id of the stream", ""),
    "log_stream_name": ("Log stream", ""),
}
LOG = ("log_group_name", "log_group_id", "log_stream_name", "log_stream_id")


class Shown(Struct, frozen=True, kw_only=True):
    """Contents of the form."""

    values: Mapping[str, str]  #: texts of the simple fields, by name
    rules: Sequence[Row]
    destinations: Mapping[str, ShownDestination]  #: by condition

    @property
    def kinds(self) -> dict[str, str]:
        return {condition: one.kind for condition, one in self.destinations.items()}


class AsyncSettingsForm:
    def __init__(self, destinations: DestinationForms) -> None:
        self._destinations = destinations

    def shown(self, settings: Settings | None) -> Shown:
        """Return the form of stored settings; None: there are none."""
        fields = _fields()
        values = dict.fromkeys((one.name for one in fields), "") if settings is None else shown_values(fields, settings)
        given = settings or {}
        return Shown(
            values=values,
            rules=rows_of(given.get(RULES, ())),
            destinations={one: self._destinations.shown(one, stored(given, one)) for one in CONDITIONS},
        )

    def typed(self, form: Form, settings: Settings | None) -> Shown:
        return Shown(
            values=typed_values(_fields(), form),
            rules=rows_in(form),
            destinations={one: self._destinations.typed(one, form, stored(settings or {}, one)) for one in CONDITIONS},
        )

    def missing(self, form: Form, shown: Shown) -> dict[str, str]:
        """Return an error for each required field of a destination that is empty, by its name."""
        return missing_values(self._destinations.fields(shown.kinds), form)

    def lost(self, form: Form, shown: Shown) -> dict[str, str]:
        """Return an error for each secret of a destination that must be typed again, by the name of its field."""
        return lost_secrets(self._destinations.fields(shown.kinds), form)

    def body(self, form: Form, settings: Settings | None) -> dict[str, Any]:
        """Return the body of a request that stores the form. Keys that the form has no field for are kept."""
        given = settings or {}
        kept = {key: value for key, value in given.items() if key not in (*_REPLY_ONLY, CONFIG, RULES)}
        body = {AGE: EVENT_AGES[1], **read_struct(_fields(), form, kept)}
        destinations = {one: self._destinations.body(one, form, stored(given, one)) for one in CONDITIONS}
        body[CONFIG] = {name: one for name, one in destinations.items() if one is not None}
        body[RULES] = rules_of(rows_in(form), given.get(RULES, ()))
        return body

    def errors(self, error: FunctiondError, shown: Shown) -> dict[str, str]:
        """Return the message of an error by the name of its field in the form."""
        found: dict[str, str] = {}
        for field, message in errors_of(error).items():
            name = self._destinations.field_of(field, shown.kinds)
            known = name in self._names(shown)
            found[name if known else WHOLE] = message if known else str(error)
        return found

    def _names(self, shown: Shown) -> set[str]:
        names = {one.name for one in (*_fields(), *self._destinations.fields(shown.kinds))} | {RULES, CONFIG}
        names |= {f"{CONFIG}.{condition}.destination" for condition in CONDITIONS}
        for number, row in enumerate(shown.rules):
            names |= {f"{RULES}[{number}]", *(f"{RULES}[{number}].{key}" for key in row)}
        return names


def is_unchanged(body: Mapping[str, Any], settings: Settings | None, shown: Shown) -> bool:
    """Return whether storing ``body``, made from the form ``shown``, would change nothing."""
    if settings is None:
        return body == {AGE: EVENT_AGES[1], CONFIG: {}, RULES: []} and set(shown.values.values()) <= {"", "false"}
    before = {key: value for key, value in settings.items() if key not in _REPLY_ONLY}
    try:
        after, stored = (msgspec.convert(one, AsyncSettingsBody) for one in (body, {RULES: [], **before}))
    except (msgspec.ValidationError, InvalidField):
        return False
    return after == stored


def stored(settings: Settings, condition: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = settings.get(CONFIG, {}).get(condition)
    return found


def simple_fields(project: str) -> dict[str, Field]:
    """Return the fields besides rules and destinations, by name. The log's examples are those of the project."""
    target = status_log_target(project)
    examples = {f"log_{name}": getattr(target, name) for name in LogTarget.__struct_fields__}
    return {one.name: replace(one, example=examples.get(one.name, one.example)) for one in _fields()}


def _fields() -> list[Field]:
    found = {one.key: one for one in fields_of(AsyncSettingsBody)}
    found[AGE] = replace(found[AGE], default=EVENT_AGES[1])
    return [replace(found[key], label=label, help=help) for key, (label, help) in _WORDS.items()]
