"""Form of asynchronous settings: its simple fields, and rows of retry rules.

All rows have the same field names; a form sends the rows in their order. A row in which nothing was entered is left
out. The field ``old`` is the position of a stored rule: a text that a browser cannot show as it is stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.config.settings import RetrySettings
from engine.errors import FunctiondError, InvalidField
from engine.http.api.async_settings import AsyncSettingsBody
from engine.http.console.asynchronous.destinations import CONDITIONS, CONFIG, DestinationForms, kind_field
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.struct_forms import (
    Choice,
    Field,
    fields_of,
    number_of,
    read_struct,
    shown_values,
    typed_values,
)
from engine.logs.target import LogTarget, status_log_target
from engine.model import Code
from engine.model.limits import EVENT_AGES
from engine.model.retry_rules import MAX_RETRIES, MAX_RULES, RetryRule

PREFIX = "retry_rules."
RULES = PREFIX.rstrip(".")
AGE = "max_async_event_age_in_seconds"
LOG = ("log_group_name", "log_group_id", "log_stream_name", "log_stream_id")
Row = Mapping[str, str]  #: text by the name of the rule's field, and ``old``
Settings = Mapping[str, Any]  #: body of a reply of the API
_SIMPLE = ("max_async_retry_attempts", AGE, "enable_async_status_log", *LOG)
#: Fields of replies that requests do not have.
_REPLY_ONLY = ("func_urn", "created_time", "last_modified")
_RULE = fields_of(RetryRule, PREFIX)
_COLUMNS = (*(one.key for one in _RULE), "old")
EMPTY: Row = dict.fromkeys(_COLUMNS, "")

#: Errors of functions, by their codes.
_ERRORS = {
    Code.ENTRY_NOT_FOUND: "handler not found",
    Code.USER_EXCEPTION: "exception, exit or kill",
    Code.RESPONSE_TOO_LARGE: "result too large",
    Code.BAD_RESULT: "result is not JSON",
    Code.INITIALIZER_ERROR: "error of the initializer",
    Code.TIMEOUT: "timeout",
    Code.REQUEST_TOO_LARGE: "request too large",
    Code.INIT_FAILED: "instance did not start",
    Code.OUT_OF_MEMORY: "out of memory",
    Code.DISK_FULL: "disk full",
    Code.INIT_TIMEOUT: "initializer timed out",
}
_CODES = (
    Choice(value=0, label="Any"),
    *(Choice(value=int(one), label=f"{one} {text}") for one, text in _ERRORS.items()),
)
_RETRIES = (
    Choice(value="", label="Choose…"),
    Choice(value=0, label="Do not retry"),
    Choice(value=1, label="Retry once"),
    *(Choice(value=number, label=f"Up to {number} retries") for number in range(2, MAX_RETRIES + 1)),
)


def rule_fields(defaults: RetrySettings) -> Mapping[str, Field]:
    """Return the fields of a rule by their names. The engine's delays, which ``defaults`` has, are their examples."""
    found = {one.key: one for one in _RULE}
    for key in ("base", "factor", "longest", "jitter"):
        found[key] = replace(found[key], example=f"{getattr(defaults, key):g}")
    found["code"] = replace(found["code"], control="choice", choices=_CODES)
    found["max_retries"] = replace(found["max_retries"], control="choice", choices=_RETRIES)
    return found


def rows_of(rules: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of stored rules."""
    return [{**_texts(rule), "old": str(number)} for number, rule in enumerate(rules)]


def rows_in(form: Form) -> list[Row]:
    """Return the rows of a form, without those in which nothing was entered."""
    rows = form.rows(PREFIX, _COLUMNS)
    return [row for row in rows if any(text for name, text in row.items() if (name, text) != ("code", "0"))]


def changed_order(rows: Sequence[Row], change: str) -> list[Row]:
    """Return the rows after a change: ``add``, ``up-1``, ``down-1`` or ``remove-1``, with the position of a row."""
    action, _, text = change.partition("-")
    position, changed = int(text) if text.isdecimal() and len(text) < 3 else -1, [*rows]
    if action == "add" and len(rows) < MAX_RULES:
        changed.append(EMPTY)
    elif 0 <= position < len(rows):
        row = changed.pop(position)
        if action in ("up", "down"):
            changed.insert(max(0, position + (1 if action == "down" else -1)), row)
    return changed


def rules_of(rows: Sequence[Row], stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rules for the API. A text that is no number is kept as text, and the API refuses it."""
    return [_rule(row, _stored(row, stored)) for row in rows]


def _stored(row: Row, stored: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    old = row["old"]
    return stored[int(old)] if old.isdecimal() and len(old) < 3 and int(old) < len(stored) else {}


def _rule(row: Row, old: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    before = _texts(old)
    for field in _RULE:
        text = row[field.key]
        if field.key in old and text == before[field.key]:
            rule[field.key] = old[field.key]
        elif field.control == "text":
            if text:
                rule[field.key] = text
        elif text.strip():
            rule[field.key] = number_of(text, whole=field.whole)
    return rule


def _texts(rule: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a rule by the names of its fields."""
    shown = shown_values(_RULE, rule)
    return {field.key: shown[field.name] for field in _RULE}


class Shown(Struct, frozen=True, kw_only=True):
    """Contents of the form."""

    values: Mapping[str, str]  #: texts of all fields but those of rules, by name
    rules: Sequence[Row]

    @property
    def kinds(self) -> dict[str, str]:
        """Kinds of the destinations by condition."""
        return {one: self.values[kind_field(one)] for one in CONDITIONS}


class AsyncSettingsForm:
    def __init__(self, destinations: DestinationForms) -> None:
        self._destinations = destinations

    def shown(self, settings: Settings | None) -> Shown:
        """Return the form of stored settings; None: there are none."""
        fields = _fields()
        values = dict.fromkeys((one.name for one in fields), "") if settings is None else shown_values(fields, settings)
        for one in CONDITIONS:
            values |= self._destinations.shown(one, stored(settings, one))
        return Shown(values=values, rules=rows_of((settings or {}).get(RULES, ())))

    def typed(self, form: Form, settings: Settings | None) -> Shown:
        values = typed_values(_fields(), form)
        for one in CONDITIONS:
            values |= self._destinations.typed(one, form, stored(settings, one))
        return Shown(values=values, rules=rows_in(form))

    def body(self, form: Form, settings: Settings | None) -> dict[str, Any]:
        """Return the body of a request that stores the form. Keys that the form has no field for are kept."""
        given = settings or {}
        kept = {key: value for key, value in given.items() if key not in (*_REPLY_ONLY, CONFIG, RULES)}
        body = {AGE: EVENT_AGES[1], **read_struct(_fields(), form, kept)}
        destinations = {one: self._destinations.body(one, form, stored(settings, one)) for one in CONDITIONS}
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
        names |= {kind_field(condition) for condition in CONDITIONS}
        for number, row in enumerate(shown.rules):
            names |= {f"{RULES}[{number}]", *(f"{RULES}[{number}].{key}" for key in row)}
        return names


def is_unchanged(body: Mapping[str, Any], settings: Settings | None, shown: Shown) -> bool:
    """Return whether storing ``body``, made from the form ``shown``, would change nothing."""
    if settings is None:
        nothing = {shown.values[name] for name in _SIMPLE} <= {"", "false"}
        return nothing and body == {AGE: EVENT_AGES[1], CONFIG: {}, RULES: []}
    before = {key: value for key, value in settings.items() if key not in _REPLY_ONLY}
    try:
        after, stored = (msgspec.convert(one, AsyncSettingsBody) for one in (body, {RULES: [], **before}))
    except (msgspec.ValidationError, InvalidField):
        return False
    return after == stored


def stored(settings: Settings | None, condition: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (settings or {}).get(CONFIG, {}).get(condition)
    return found


def simple_fields(project: str) -> dict[str, Field]:
    """Return the fields besides rules and destinations, by name. The log's examples are those of the project."""
    target = status_log_target(project)
    examples = {f"log_{name}": getattr(target, name) for name in LogTarget.__struct_fields__}
    return {one.name: replace(one, example=examples.get(one.name, one.example)) for one in _fields()}


def _fields() -> list[Field]:
    found = {one.key: one for one in fields_of(AsyncSettingsBody)}
    found[AGE] = replace(found[AGE], default=EVENT_AGES[1])
    return [found[key] for key in _SIMPLE]
