"""Form fields of a struct type, such as the options of a trigger kind or the parameters of a destination.

Types, bounds, defaults and allowed values are those of the struct. ``msgspec.Meta`` adds the words:

- ``title``: label; otherwise made from the field's name.
- ``examples``: the first is shown in the empty field.
- ``extra``: ``help``, a sentence below the field; ``labels``, a mapping from the values of a ``Literal`` to their
  labels, in the order of the list, which may have further values; ``initial``, the value in the form of a new object;
  ``hidden``, for fields that forms leave out; ``secret`` and ``fixed``, as ``TriggerRules`` describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal

from msgspec import NODEFAULT, Struct, inspect

Control = Literal["text", "area", "secret", "number", "flag", "choice", "lines", "json", "group"]

LONG = 1025  #: characters from which on a text gets an area of several lines
_UPPER = frozenset({"id", "urn", "url", "ssl", "ip", "cors", "api", "sql"})


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
    def options(self) -> list[tuple[str, str]]:
        """Choices as pairs of the text that forms send and the label."""
        return [(one.text, one.label) for one in self.choices]


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
    return str(value).lower() if isinstance(value, bool) else str(value)


def label_of(key: str) -> str:
    """Return the label of a field without a title: ``topic_urn`` becomes ``Topic URN``."""
    first, *others = (word.upper() if word in _UPPER else word for word in key.lower().split("_"))
    return " ".join((first[:1].upper() + first[1:], *others))


def _fields(described: inspect.StructType, prefix: str) -> tuple[Field, ...]:
    found = [_field(one, prefix) for one in described.fields if not _is_left_out(one)]
    return tuple(sorted(found, key=lambda field: not field.required))


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
        control="secret" if extra.get("secret") else _control(kind),
        help=extra.get("help", ""),
        example="\n".join(as_text(one) for one in schema.get("examples", ())[:1]),
        required=field.required,
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
        others = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _unwrapped(next((one for one in others if isinstance(one, inspect.LiteralType)), others[0]))
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
