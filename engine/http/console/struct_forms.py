"""Forms of struct types, such as the options of a trigger kind: their fields, and the JSON objects that they describe.

Types, bounds, defaults and allowed values are those of the struct. ``msgspec.Meta`` adds the words:

- ``title``: label; otherwise made from the field's name.
- ``examples``: the first is shown in the empty field.
- ``extra``: ``help``, a sentence below the field; ``unit``, of a number; ``labels``, a mapping from the values of a
  ``Literal`` to their labels, in the order of the list, which may have further values; ``initial``, the value in the
  form of a new object; ``control``, in place of the one that fits the type; ``hidden``, for fields that forms leave
  out; ``derived``, for required fields that may stay empty; ``secret`` and ``fixed``, as ``TriggerRules`` describes.

The object that a form returns has no other keys than its old object has, except for values that differ from their
defaults. A form that is sent unchanged therefore changes nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, inspect

from engine.http.console.forms import WHOLE, Form
from engine.model.text import MASK

Control = Literal["text", "area", "secret", "number", "flag", "choice", "lines", "json", "group"]
Data = dict[str, Any]

LONG = 1025  #: characters from which on a text gets an area of several lines
REMOVE = ".remove"  #: ending of the name of the checkbox that removes a stored secret
_UPPER = frozenset({"id", "urn", "url", "ssl", "ip", "cors", "api", "sql"})
_WHOLE = re.compile(r"-?\d{1,15}", re.ASCII)
_DECIMAL = re.compile(r"-?(\d{1,15}\.\d{0,15}|\.\d{1,15})", re.ASCII)


class Choice(Struct, frozen=True, kw_only=True):
    value: Any
    label: str

    @property
    def text(self) -> str:
        """Value as forms send it."""
        return as_text(self.value)


class Field(Struct, frozen=True, kw_only=True):
    name: str  #: in forms and errors: path of the field, such as ``event_data.func_info.timeout``
    key: str  #: in its object
    label: str
    control: Control
    help: str = ""
    unit: str = ""
    example: str = ""
    required: bool = False
    default: Any = None
    initial: Any = None  #: value in the form of a new object
    fixed: bool = False  #: cannot be changed later
    whole: bool = False  #: numbers: no fractions
    low: float | None = None
    high: float | None = None
    longest: int | None = None  #: characters
    choices: tuple[Choice, ...] = ()
    fields: tuple[Field, ...] = ()  #: of a group

    @property
    def hint(self) -> str:
        """Meaning of the field, then its limits and their unit."""
        if self.low is None or self.high is None:
            return self.help
        limits = f"From {self.low:,g} to {self.high:,.0f}"
        return f"{self.help} {' '.join(filter(None, (limits, self.unit)))}.".strip()

    @property
    def options(self) -> list[tuple[str, str]]:
        """Choices as pairs of the text that forms send and the label."""
        return [(choice.text, choice.label) for choice in self.choices]


@cache
def fields_of(kind: type[Struct], prefix: str = "") -> tuple[Field, ...]:
    """Return the fields of a struct type, required ones first. ``prefix`` begins their names."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return _fields(described, prefix)


def flat(fields: Iterable[Field]) -> Iterator[Field]:
    """Yield the fields that take a value: members of groups in place of the groups."""
    for field in fields:
        if field.control == "group":
            yield from flat(field.fields)
        else:
            yield field


def as_text(value: Any) -> str:
    """Return a value as forms send it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def one_line(text: str) -> str:
    """Return a text as a browser has it in a field of one line."""
    return text.replace("\r", "").replace("\n", "")


def lines(text: str) -> str:
    """Return a text with the line breaks of a form."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def label_of(key: str) -> str:
    """Return the label of a field without a title: ``topic_urn`` becomes ``Topic URN``."""
    first, *others = (word.upper() if word in _UPPER else word for word in key.lower().split("_"))
    return " ".join((first[:1].upper() + first[1:], *others))


def _fields(described: inspect.StructType, prefix: str) -> tuple[Field, ...]:
    fields = [_field(field, prefix) for field in described.fields if not _is_left_out(field)]
    return tuple(sorted(fields, key=lambda field: not field.required))


def _is_left_out(field: inspect.Field) -> bool:
    """Return whether forms have no control for a field: it is hidden, or has one possible value."""
    kind, _, extra = _unwrapped(field.type)
    single = isinstance(kind, inspect.LiteralType) and len(kind.values) == 1 and not field.required
    return bool(extra.get("hidden")) or single


def _field(field: inspect.Field, prefix: str) -> Field:
    kind, schema, extra = _unwrapped(field.type)
    name = prefix + field.encode_name
    default = _default(field)
    fields = _fields(kind, f"{name}.") if isinstance(kind, inspect.StructType) else ()
    choices = _choices(kind, extra.get("labels", {}), optional=default is None and not field.required)
    initial = extra.get("initial", choices[0].value if field.required and choices else default)
    return Field(
        name=name,
        key=field.encode_name,
        label=schema.get("title") or label_of(field.encode_name),
        control="secret" if extra.get("secret") else extra.get("control") or _control(kind),
        help=extra.get("help", ""),
        unit=extra.get("unit", ""),
        example="\n".join(as_text(example) for example in schema.get("examples", ())[:1]),
        required=field.required and not extra.get("derived"),
        default=default,
        initial=initial,
        fixed=bool(extra.get("fixed")),
        whole=isinstance(kind, inspect.IntType),
        low=kind.ge if isinstance(kind, inspect.IntType | inspect.FloatType) else None,
        high=kind.le if isinstance(kind, inspect.IntType | inspect.FloatType) else None,
        longest=kind.max_length if isinstance(kind, inspect.StrType) else None,
        choices=choices,
        fields=fields,
    )


def _default(field: inspect.Field) -> Any:
    if field.default is not NODEFAULT:
        return field.default
    return None if field.default_factory is NODEFAULT else field.default_factory()


def _unwrapped(kind: inspect.Type) -> tuple[inspect.Type, Mapping[str, Any], Mapping[str, Any]]:
    """Return a type without its metadata and without null, and the metadata: schema and extra."""
    if isinstance(kind, inspect.Metadata):
        inner, schema, extra = _unwrapped(kind.type)
        return inner, {**schema, **(kind.extra_json_schema or {})}, {**extra, **(kind.extra or {})}
    if isinstance(kind, inspect.UnionType):
        # A literal beside another type, such as "true" beside true, is the spelling that forms use.
        others = [other for other in kind.types if not isinstance(other, inspect.NoneType)]
        return _unwrapped(next((other for other in others if isinstance(other, inspect.LiteralType)), others[0]))
    return kind, {}, {}


def _choices(kind: inspect.Type, labels: Mapping[Any, str], *, optional: bool) -> tuple[Choice, ...]:
    if not isinstance(kind, inspect.LiteralType):
        return ()
    order = [*labels, *(value for value in kind.values if value not in labels)]
    if optional:
        order.insert(0, None)
    return tuple(Choice(value=value, label=labels.get(value) or as_text(value) or "None") for value in order)


def _control(kind: inspect.Type) -> Control:
    if isinstance(kind, inspect.StructType):
        return "group"
    if isinstance(kind, inspect.LiteralType):
        return "choice"
    if isinstance(kind, inspect.BoolType):
        return "flag"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return "number"
    if isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(
        _unwrapped(kind.item_type)[0], inspect.StrType
    ):
        return "lines"
    if isinstance(kind, inspect.StrType):
        return "area" if (kind.max_length or 0) >= LONG else "text"
    return "json"


def shown_values(fields: Iterable[Field], data: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the text of each field by its name. ``data`` None: of a new object, with the initial values.

    Secrets are never shown: their text is ``MASK`` if they are set, and empty otherwise.
    """
    values: dict[str, str] = {}
    for field in fields:
        if field.control == "group":
            inner = None if data is None else data.get(field.key) or {}
            values |= shown_values(field.fields, inner)
        else:
            values[field.name] = _text(field, field.initial if data is None else data.get(field.key, field.default))
    return values


def typed_values(fields: Iterable[Field], form: Form, old: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the text of each field by its name, as it was typed.

    Secrets, and fields that the form does not have, are those of the old object.
    """
    values = shown_values(fields, old or {})
    for field in flat(fields):
        if field.control == "flag":
            values[field.name] = as_text(field.name in form)
        elif field.control != "secret" and field.name in form:
            values[field.name] = form.raw(field.name)
    return values


def changed_values(fields: Iterable[Field], typed: Mapping[str, str], shown: Mapping[str, str]) -> Data:
    """Return the values of those fields whose typed text is not the one shown, by key.

    An empty number stands for the initial value of its field; without one, it is kept as text, for the error of the
    API.
    """
    changed: Data = {}
    for field in fields:
        if (text := typed[field.name]) != shown[field.name]:
            value = parsed(field, text)
            changed[field.key] = value if value is not UNSET else text if field.initial is None else field.initial
    return changed


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
            name if name in names else next((key for key in names if name.startswith((f"{key}[", f"{key}."))), WHOLE)
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
    if field.control == "text":
        return one_line(as_text(value))
    return lines(as_text(value))


def _read(field: Field, form: Form, before: Mapping[str, Any]) -> Any:
    """Return the value of a field; UNSET if its object should not have it."""
    if field.control == "group":
        inner = before.get(field.key)
        struct = read_struct(field.fields, form, inner if isinstance(inner, dict) else None)
        return struct if struct or field.required or field.key in before else UNSET
    if field.control == "secret":
        return _secret(field, form, before)
    if field.control == "flag":
        value: Any = field.name in form
    elif field.key in before and form.raw(field.name) == _text(field, before[field.key]):
        return before[field.key]
    else:
        value = parsed(field, form.raw(field.name))
    if field.key in before and value is not UNSET:
        return value
    empty = value in ("", [], UNSET)
    return UNSET if value == field.default or (empty and not field.required) else value


def _secret(field: Field, form: Form, before: Mapping[str, Any]) -> Any:
    if form.raw(field.name):
        return form.raw(field.name)
    kept = before.get(field.key) and field.name + REMOVE not in form
    return MASK if kept else UNSET


def parsed(field: Field, typed: str) -> Any:
    """Return the value of what was typed; UNSET for an empty number or JSON. Text that is no value is kept as text."""
    text = typed.strip()
    if field.control == "flag":
        return text == "true"
    if field.control == "choice":
        return next((choice.value for choice in field.choices if choice.text == text), text)
    if field.control == "lines":
        return [line.strip() for line in text.split("\n") if line.strip()]
    if field.control == "number":
        return number_of(text, whole=field.whole) if text else UNSET
    if field.control == "json":
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(text) if text else UNSET
    return typed if field.control == "area" else text


def number_of(text: str, *, whole: bool = True) -> int | float | str:
    """Return the number in a text for the API; the text itself if it is none, which the API refuses."""
    text = text.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if not whole and _DECIMAL.fullmatch(text) else text
