"""Descriptions of invalid data: the field, its value, and the accepted values, read from error messages of msgspec."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from msgspec import Struct, ValidationError, inspect

_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_STEP = re.compile(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+")
_LONGEST_NAME = 100  #: characters of an unknown name that are compared with the known ones
_type_info = lru_cache(256)(inspect.type_info)  #: a batch may have many errors about one type
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "text",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
    inspect.NoneType: "null",
}


class ValidationIssue(Struct, frozen=True, kw_only=True):
    field: str  #: path of the field; empty for the whole value
    value: Any
    allowed: str  #: description of the accepted values
    hint: str = ""  #: known keys in place of an unknown one; empty: the key is known


def describe_issue(error: ValidationError, data: Any, kind: Any) -> ValidationIssue:
    """Describe why msgspec raised ``error`` when it converted ``data`` to the type ``kind``."""
    text = str(error)
    match = _PATH.search(text)
    path, message = (match[1], text[: match.start()]) if match else ("", text)
    steps = _STEP.findall(path)
    if missing := _MISSING.match(message):
        allowed = _required(_fields(kind, steps), _value_at(data, steps), missing[1])
        return ValidationIssue(field=_joined(path, missing[1]), value=None, allowed=allowed)
    if unknown := _UNKNOWN.match(message):
        hint = _hint(_fields(kind, steps), unknown[1])
        return ValidationIssue(
            field=_joined(path, unknown[1]),
            value=_value_at(data, [*steps, unknown[1]]),
            allowed=f"no such key: {hint.replace('`', '')}",
            hint=hint,
        )
    # Checks in ``__post_init__`` are not part of the type, so only their message describes them.
    allowed = _allowed(kind, steps) if message.startswith(("Expected", "Invalid")) else ""
    return ValidationIssue(field=path, value=_value_at(data, steps), allowed=allowed or message)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _required(fields: list[inspect.Field], given: Any, first: str) -> str:
    """Describe the required fields that ``given`` lacks; msgspec reports only the field ``first``."""
    present = {first, *(given if isinstance(given, dict) else ())}
    more = [field.encode_name for field in fields if field.required and field.encode_name not in present]
    return f"it is required, and so {'is' if len(more) == 1 else 'are'} {', '.join(more)}" if more else "it is required"


def _hint(fields: list[inspect.Field], name: str) -> str:
    names = [field.encode_name for field in fields]
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(names)}"


def _value_at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, list) and step.startswith("["):
            value = value[int(step[1:-1])]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:  # the decoder does not report the key of an entry
            break
    return value


def _allowed(kind: Any, steps: list[str]) -> str:
    """Describe the values that the type ``kind`` accepts at the path ``steps``; empty if it restricts none."""
    return " or ".join(filter(None, map(_describe_type, _types(kind, steps))))


def _fields(kind: Any, steps: list[str]) -> list[inspect.Field]:
    """Return the fields of the struct at the path ``steps`` in ``kind``; empty unless one struct type is possible."""
    shapes = [candidate.fields for candidate in _types(kind, steps) if isinstance(candidate, inspect.StructType)]
    return list(shapes[0]) if len(shapes) == 1 else []


def _types(kind: Any, steps: list[str]) -> list[inspect.Type]:
    types = [_type_info(kind)]
    for step in steps:
        types = [inner for outer in _alternatives(types) for inner in _inner(outer, step)]
    return _alternatives(types)


def _alternatives(types: list[inspect.Type]) -> list[inspect.Type]:
    flat: list[inspect.Type] = []
    for kind in types:
        flat += kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return flat


def _inner(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _inner(kind.type, step)
    elif isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == step)
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        yield kind.item_type


def _describe_type(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        more = kind.extra_json_schema or {}
        return str(more.get("description") or _one_of(more.get("enum", ())) or _describe_type(kind.type))
    if isinstance(kind, inspect.LiteralType):
        return _one_of(kind.values)
    word = _WORDS.get(type(kind))
    return f"must be {word}{_bounds(kind)}" if word else ""


def _one_of(values: Any) -> str:
    return f"must be one of {', '.join(map(str, values))}" if values else ""


def _bounds(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        low, high, of = kind.ge, kind.le, ""
    elif isinstance(kind, inspect.StrType):
        low, high, of = kind.min_length, kind.max_length, " characters"
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        low, high, of = kind.min_length, kind.max_length, " entries"
    else:
        return ""
    if low is not None and high is not None:
        return f" from {low} to {high}{of}" if not of else f" of {low} to {high}{of}"
    if high is not None:
        return f" up to {high}" if not of else f" of up to {high}{of}"
    return "" if low is None else f", {low} or more" if not of else f" of {low}{of} or more"
