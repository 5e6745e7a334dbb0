"""Conversion between the form of a struct and its JSON object, such as a trigger's ``event_data``.

The object that a form returns has no other keys than its old object has, except for values that differ from their
defaults. A form that is sent unchanged therefore changes nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from engine.http.console.forms import WHOLE, Form
from engine.http.console.struct_fields import Field, as_text, flat
from engine.model.text import MASK

Data = dict[str, Any]
_WHOLE = re.compile(r"-?\d{1,15}", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,15}\.\d{1,15}", re.ASCII)
REMOVE = ".remove"  #: ending of the name of the checkbox that removes a stored secret


def shown_values(fields: Iterable[Field], data: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the text of each field by its name. ``data`` None: of a new object, with the initial values.

    Secrets are never shown: their text is ``MASK`` if they are set, and empty otherwise.
    """
    found: dict[str, str] = {}
    for field in fields:
        if field.control == "group":
            inner = None if data is None else data.get(field.key) or {}
            found |= shown_values(field.fields, inner)
        else:
            found[field.name] = _text(field, field.initial if data is None else data.get(field.key, field.default))
    return found


def typed_values(fields: Iterable[Field], form: Form, old: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the text of each field by its name, as it was typed. Secrets are those of the old object."""
    found = shown_values(fields, old or {})
    for field in flat(fields):
        if field.control == "flag":
            found[field.name] = as_text(field.name in form)
        elif field.control != "secret":
            found[field.name] = form.raw(field.name)
    return found


def read_struct(fields: Iterable[Field], form: Form, old: Mapping[str, Any] | None = None) -> Data:
    """Return the object that a form describes. Keys of the old object that have no field are kept.

    A secret whose field is empty is sent masked, which leaves it unchanged. Text that is no number is kept as text,
    for the error of the API.
    """
    before = old or {}
    data = dict(before)
    for field in fields:
        value = _read(field, form, before)
        if value is UNSET:
            data.pop(field.key, None)
        else:
            data[field.key] = value
    return data


def missing_values(fields: Iterable[Field], form: Form, old: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return an error for each required field that is empty, by its name."""
    kept = shown_values(fields, old or {})
    return {
        field.name: "Enter a value."
        for field in flat(fields)
        if field.required
        and field.control != "flag"
        and not form.text(field.name)
        and not (field.control == "secret" and kept[field.name])
    }


def lost_secrets(fields: Iterable[Field], form: Form) -> dict[str, str]:
    """Return an error for each secret that was typed, by the name of its field: a page that is shown again lacks it."""
    secrets = (field.name for field in flat(fields) if field.control == "secret")
    return {name: "Type it again: the engine sends no secrets back." for name in secrets if form.raw(name)}


def errors_beside(fields: Iterable[Field], errors: Mapping[str, str]) -> dict[str, str]:
    """Return errors by the names of their fields. An error of a part stands beside its field, others before all."""
    names = {field.name for field in flat(fields)}
    placed: dict[str, str] = {}
    for name, message in errors.items():
        field = (
            name if name in names else next((one for one in names if name.startswith((f"{one}[", f"{one}."))), WHOLE)
        )
        text = f"{name}: {message}" if field == WHOLE != name else message
        placed[field] = f"{placed[field]} {text}" if field in placed else text
    return placed


def _text(field: Field, value: Any) -> str:
    if value is None:
        return ""
    if field.control == "secret":
        return MASK if value else ""
    if field.control == "lines" and isinstance(value, list | tuple):
        return "\n".join(map(as_text, value))
    if field.control == "json":
        return msgspec.json.format(msgspec.json.encode(value)).decode()
    return as_text(value)


def _read(field: Field, form: Form, before: Mapping[str, Any]) -> Any:
    """Return the value of a field; UNSET if its object should not have it."""
    if field.control == "group":
        inner = before.get(field.key)
        found = read_struct(field.fields, form, inner if isinstance(inner, dict) else None)
        return found if found or field.required or field.key in before else UNSET
    if field.control == "secret":
        return _secret(field, form, before)
    if field.control == "flag":
        value: Any = field.name in form
    elif field.key in before and form.raw(field.name) == _text(field, before[field.key]).replace("\r\n", "\n"):
        return before[field.key]
    else:
        value = _parsed(field, form)
    if field.key in before and value is not UNSET:
        return value
    empty = value in ("", [], UNSET)
    return UNSET if value == field.default or (empty and not field.required) else value


def _secret(field: Field, form: Form, before: Mapping[str, Any]) -> Any:
    if form.raw(field.name):
        return form.raw(field.name)
    kept = before.get(field.key) and field.name + REMOVE not in form
    return MASK if kept else UNSET


def _parsed(field: Field, form: Form) -> Any:
    """Return the value of what was typed; UNSET for an empty number, or an empty choice that is none of the values."""
    text = form.text(field.name)
    if field.control == "choice":
        return next((one.value for one in field.choices if one.text == text), text)
    if field.control == "lines":
        return [line.strip() for line in text.split("\n") if line.strip()]
    if field.control == "number":
        return _number(field, text) if text else UNSET
    if field.control == "json":
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(text) if text else UNSET
    return form.raw(field.name) if field.control == "area" else text


def _number(field: Field, text: str) -> int | float | str:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if not field.whole and _DECIMAL.fullmatch(text) else text
