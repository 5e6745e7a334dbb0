"""Form of asynchronous settings: its simple fields, rows of retry rules, and destinations with their parameters.

All rows have the same field names; a form sends the rows in their order. A row in which nothing was entered is left
out. The field ``old`` is the position of a stored rule: a text that a browser cannot show as it is stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.config.plugin_registry import Registry
from engine.config.settings import RetrySettings
from engine.errors import FunctiondError, InvalidField
from engine.http.api.async_settings import AsyncSettingsBody
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.struct_forms import (
    Choice,
    Field,
    fields_of,
    read_struct,
    shown_values,
    typed_values,
)
from engine.logs.target import LogTarget, status_log_target
from engine.model import AsyncSettings, Code, DestinationSpec
from engine.model.limits import EVENT_AGES
from engine.model.retry_rules import MAX_RETRIES, MAX_RULES, RetryRule
from engine.protocols import PluginContext

CONFIG = "destination_config"
CONDITIONS = ("on_success", "on_failure")
#: Names of the kinds of the engine's own plugins and what they receive. Other kinds are shown by their own names.
_WORDS = {
    "OBS": ("OBS", "Store the outcome as an object of a bucket."),
    "SMN": ("SMN", "Publish the outcome as a message of a topic."),
    "DIS": ("DIS", "Write the outcome as a record of a stream."),
    "FunctionGraph": ("FunctionGraph", "Invoke another function of the project with the outcome as its event."),
    "KAFKA": ("Kafka", "Write the outcome as a record of a topic."),
    "WEBHOOK": ("Webhook", "Send the outcome to a URL by POST."),
}
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
_COLUMNS = (*(field.key for field in _RULE), "old")
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
    *(Choice(value=int(code), label=f"{code} {text}") for code, text in _ERRORS.items()),
)
_RETRIES = (
    Choice(value="", label="Choose…"),
    Choice(value=0, label="Do not retry"),
    Choice(value=1, label="Retry once"),
    *(Choice(value=number, label=f"Up to {number} retries") for number in range(2, MAX_RETRIES + 1)),
)


class KindForm(Struct, frozen=True, kw_only=True):
    """Kind of destination, for one condition."""

    kind: str
    label: str
    text: str
    fields: tuple[Field, ...]


class DestinationForms:
    """Forms of destinations. ``context_for`` returns the context of the plugin that has a kind."""

    def __init__(self, registry: Registry, context_for: Callable[[str], PluginContext]) -> None:
        self._registry, self._context_for = registry, context_for

    def kinds(self, condition: str, stored: Mapping[str, Any] | None) -> list[KindForm]:
        """Return the kinds that a form offers: those of the registered plugins, and that of the stored destination."""
        names = sorted(self._registry.destinations, key=lambda kind: (_rank(kind), kind))
        if stored and self._spelled(stored["destination"]) not in names:
            names.append(stored["destination"])
        return [self._kind(condition, name) for name in names]

    def shown(self, condition: str, stored: Mapping[str, Any] | None) -> dict[str, str]:
        """Return the texts of the kind and of the fields of all kinds, by name. Other kinds have initial values."""
        chosen = self._spelled(stored["destination"]) if stored else ""
        values = {kind_field(condition): chosen}
        for kind in self.kinds(condition, stored):
            values |= shown_values(kind.fields, _param(stored) if stored and kind.kind == chosen else None)
        return values

    def typed(self, condition: str, form: Form, stored: Mapping[str, Any] | None) -> dict[str, str]:
        values = {**self.shown(condition, stored), kind_field(condition): form.text(kind_field(condition))}
        for kind in self.kinds(condition, stored):
            values |= typed_values(kind.fields, form)
        return values

    def body(self, condition: str, form: Form, stored: Mapping[str, Any] | None) -> dict[str, str] | None:
        """Return the destination for the API; None: no destination. An unchanged one is returned as it is stored."""
        kind = form.text(kind_field(condition))
        if not kind:
            return None
        same = stored if stored and self._spelled(stored["destination"]) == kind else None
        known = self._kind(condition, kind)
        if not known.fields and same is not None:
            return dict(same)
        old = _param(same)
        param = read_struct(known.fields, form, old)
        if same is not None and param == old:
            return dict(same)
        return {"destination": kind, "param": msgspec.json.encode(param).decode()}

    def field_of(self, field: str, kinds: Mapping[str, str]) -> str:
        """Return the name of the form's field for a field of the API, given the chosen kinds by condition."""
        for condition, kind in kinds.items():
            path = f"{CONFIG}.{condition}."
            if field == f"{path}param":
                return kind_field(condition)
            if field.startswith(f"{path}param."):
                return _prefix(condition, kind) + field.removeprefix(f"{path}param.")
        return field

    def unknown(self, settings: AsyncSettings | None, project: str) -> dict[str, str]:
        """Return an error for each field of stored destinations that names a thing which is not there."""
        found: dict[str, str] = {}
        for condition in CONDITIONS:
            spec: DestinationSpec | None = getattr(settings, condition, None)
            plugin = self._registry.plugin(spec.destination) if spec else None
            if spec is None or plugin is None or plugin.param is None or plugin.unknown is None:
                continue
            param = msgspec.json.decode(spec.param, type=plugin.param)
            if field := plugin.unknown(self._context_for(spec.destination), param, project):
                name = _prefix(condition, self._spelled(spec.destination)) + field
                found[name] = f"{getattr(param, field)} does not exist; create it, or correct the name"
        return found

    def fields(self, kinds: Mapping[str, str]) -> list[Field]:
        """Return the fields of the chosen kinds, by condition."""
        return [field for condition, kind in kinds.items() if kind for field in self._kind(condition, kind).fields]

    def _kind(self, condition: str, kind: str) -> KindForm:
        plugin = self._registry.plugin(kind)
        label, text = _WORDS.get(kind, (kind, ""))
        fields: Sequence[Field] = ()
        if plugin is not None and plugin.param is not None:
            fields = fields_of(plugin.param, _prefix(condition, kind))
        return KindForm(kind=kind, label=label, text=text, fields=tuple(fields))

    def _spelled(self, kind: str) -> str:
        """Return a kind as the registry spells it: requests may use another case."""
        return next((name for name in self._registry.destinations if name.upper() == kind.upper()), kind)


def kind_field(condition: str) -> str:
    """Return the name of the field with the kind of a destination; its text is empty if there is none."""
    return f"{CONFIG}.{condition}.destination"


def _prefix(condition: str, kind: str) -> str:
    return f"{CONFIG}.{condition}.{kind}."


def _rank(kind: str) -> int:
    return list(_WORDS).index(kind) if kind in _WORDS else len(_WORDS)


def _param(stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored["param"] or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def rule_fields(defaults: RetrySettings) -> Mapping[str, Field]:
    """Return the fields of a rule by their names. The engine's delays, which ``defaults`` has, are their examples."""
    fields = {field.key: field for field in _RULE}
    for key in ("base", "factor", "longest", "jitter"):
        fields[key] = replace(fields[key], example=f"{getattr(defaults, key):g}")
    fields["code"] = replace(fields["code"], control="choice", choices=_CODES)
    fields["max_retries"] = replace(fields["max_retries"], control="choice", choices=_RETRIES)
    return fields


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
    forms = [(Form([(PREFIX + key, text) for key, text in row.items()]), _stored(row, stored)) for row in rows]
    return [read_struct(_RULE, form, old) for form, old in forms]


def _stored(row: Row, stored: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    old = row["old"]
    return stored[int(old)] if old.isdecimal() and len(old) < 3 and int(old) < len(stored) else {}


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
        return {condition: self.values[kind_field(condition)] for condition in CONDITIONS}


class AsyncSettingsForm:
    def __init__(self, destinations: DestinationForms) -> None:
        self._destinations = destinations

    def shown(self, settings: Settings | None) -> Shown:
        """Return the form of stored settings; None: there are none."""
        fields = _fields()
        values = (
            dict.fromkeys((field.name for field in fields), "") if settings is None else shown_values(fields, settings)
        )
        for condition in CONDITIONS:
            values |= self._destinations.shown(condition, stored(settings, condition))
        return Shown(values=values, rules=rows_of((settings or {}).get(RULES, ())))

    def typed(self, form: Form, settings: Settings | None) -> Shown:
        values = typed_values(_fields(), form)
        for condition in CONDITIONS:
            values |= self._destinations.typed(condition, form, stored(settings, condition))
        return Shown(values=values, rules=rows_in(form))

    def body(self, form: Form, settings: Settings | None) -> dict[str, Any]:
        """Return the body of a request that stores the form. Keys that the form has no field for are kept."""
        given = settings or {}
        kept = {key: value for key, value in given.items() if key not in (*_REPLY_ONLY, CONFIG, RULES)}
        body = {AGE: EVENT_AGES[1], **read_struct(_fields(), form, kept)}
        destinations = {
            condition: self._destinations.body(condition, form, stored(settings, condition)) for condition in CONDITIONS
        }
        body[CONFIG] = {name: destination for name, destination in destinations.items() if destination is not None}
        body[RULES] = rules_of(rows_in(form), given.get(RULES, ()))
        return body

    def errors(self, error: FunctiondError, shown: Shown) -> dict[str, str]:
        """Return the message of an error by the name of its field in the form."""
        messages: dict[str, str] = {}
        for field, message in errors_of(error).items():
            name = self._destinations.field_of(field, shown.kinds)
            known = name in self._names(shown)
            messages[name if known else WHOLE] = message if known else str(error)
        return messages

    def _names(self, shown: Shown) -> set[str]:
        names = {field.name for field in (*_fields(), *self._destinations.fields(shown.kinds))} | {RULES, CONFIG}
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
        after, stored = (msgspec.convert(data, AsyncSettingsBody) for data in (body, {RULES: [], **before}))
    except (msgspec.ValidationError, InvalidField):
        return False
    return after == stored


def stored(settings: Settings | None, condition: str) -> Mapping[str, Any] | None:
    destination: Mapping[str, Any] | None = (settings or {}).get(CONFIG, {}).get(condition)
    return destination


def simple_fields(project: str) -> dict[str, Field]:
    """Return the fields besides rules and destinations, by name. The log's examples are those of the project."""
    target = status_log_target(project)
    examples = {f"log_{name}": getattr(target, name) for name in LogTarget.__struct_fields__}
    return {field.name: replace(field, example=examples.get(field.name, field.example)) for field in _fields()}


def _fields() -> list[Field]:
    fields = {field.key: field for field in fields_of(AsyncSettingsBody)}
    fields[AGE] = replace(fields[AGE], default=EVENT_AGES[1])
    return [fields[key] for key in _SIMPLE]
