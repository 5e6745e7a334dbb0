"""A body as a shape; what does not fit is told as the field, the value, and what would do.

What would do is read from the shape itself, so that a limit that stands there validates, documents and explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from engine.errors import InvalidField, NotJson
from engine.http.api.secrets import is_secret, without_secrets
from engine.http.wire import check_json_text
from engine.text import MASK, without_nulls

T = TypeVar("T")

DEPTH = 100  #: levels of lists and objects within each other; what looks through bodies may call itself at each

#: For sound JSON only: a text without an end would be searched again and again.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_TOO_DEEP = f"it is nested too deeply: {DEPTH} levels are allowed"
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_STEP = re.compile(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+")
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text",
    inspect.ListType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
    inspect.NoneType: "null",
}


def decode(body: bytes, kind: type[T], error: type[InvalidField] = InvalidField) -> T:
    """JSON as ``kind``, where a null is as good as nothing. Raises NotJson, and for what does not fit ``error``."""
    try:
        value = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        value = _decode_again(body, kind, error)
    except msgspec.DecodeError as problem:
        raise NotJson(str(problem)) from None
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    _check_depth(body)
    return value


def _decode_again(body: bytes, kind: type[T], error: type[InvalidField]) -> T:
    """What does not fit may do so without its nulls."""
    check_json_text(body)  # it may be broken further on, which comes first
    _check_depth(body)
    given = without_nulls(msgspec.json.decode(body))
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as problem:
        raise _misfit(str(problem), given, kind, error) from None


def _check_depth(body: bytes) -> None:
    """Raises NotJson. What has few brackets, such as a large package, is not looked through."""
    if body.count(b"{") + body.count(b"[") <= DEPTH:
        return
    brackets = _TEXT.sub(b"", body).translate(_BRACKETS, _OTHERS)
    for _ in range(DEPTH):  # the innermost level goes
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise NotJson(_TOO_DEEP)


def _misfit(message: str, given: Any, kind: Any, error: type[InvalidField]) -> InvalidField:
    found = _PATH.search(message)
    path, said = (found[1], message[: found.start()]) if found else ("", message)
    if missing := _MISSING.match(said):
        return error(".".join(filter(None, (path, missing[1]))), None, "it is required")
    steps = _STEP.findall(path)
    value = MASK if is_secret(path) else without_secrets(_value_at(given, steps))
    return error(path or "body", value, _allowed(kind, steps) or said)


def _value_at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, list) and step.startswith("["):
            value = value[int(step[1:-1])]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:  # which entry of an object it is, the decoder does not tell
            break
    return value


def _allowed(kind: Any, steps: list[str]) -> str:
    """Empty if the shape does not say."""
    found = [inspect.type_info(kind)]
    for step in steps:
        found = [inner for one in _alternatives(found) for inner in _inner(one, step)]
    return " or ".join(filter(None, map(_told, _alternatives(found))))


def _alternatives(types: list[inspect.Type]) -> list[inspect.Type]:
    flat: list[inspect.Type] = []
    for one in types:
        flat += one.types if isinstance(one, inspect.UnionType) else (one,)
    return flat


def _inner(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _inner(kind.type, step)
    elif isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == step)
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type
    elif isinstance(kind, inspect.ListType):
        yield kind.item_type


def _told(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        more = kind.extra_json_schema or {}
        return str(more.get("description") or _one_of(more.get("enum", ())) or _told(kind.type))
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
    elif isinstance(kind, inspect.ListType):
        low, high, of = kind.min_length, kind.max_length, " entries"
    else:
        return ""
    if low is not None and high is not None:
        return f" from {low} to {high}{of}" if not of else f" of {low} to {high}{of}"
    if high is not None:
        return f" up to {high}" if not of else f" of up to {high}{of}"
    return "" if low is None else f", {low} or more" if not of else f" of {low}{of} or more"
