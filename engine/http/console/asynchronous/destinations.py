"""Kinds of destinations that the form of asynchronous settings offers, with the fields of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.config.plugin_registry import Registry
from engine.http.console.forms import Form
from engine.http.console.struct_forms import Field, fields_of, read_struct, shown_values, typed_values
from engine.model import AsyncSettings, DestinationSpec
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
        for one in self.kinds(condition, stored):
            values |= shown_values(one.fields, _param(stored) if stored and one.kind == chosen else None)
        return values

    def typed(self, condition: str, form: Form, stored: Mapping[str, Any] | None) -> dict[str, str]:
        values = {**self.shown(condition, stored), kind_field(condition): form.text(kind_field(condition))}
        for one in self.kinds(condition, stored):
            values |= typed_values(one.fields, form)
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
        return next((one for one in self._registry.destinations if one.upper() == kind.upper()), kind)


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
