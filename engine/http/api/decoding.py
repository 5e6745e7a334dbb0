"""A body as a shape; what does not fit is told as the field, the value, and what would do.

What would do is read from the shape itself, so that a limit that stands there validates, documents and explains.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from engine.asgi.wire import check_json_text
from engine.config.validation import describe_issue
from engine.errors import InvalidField, NotJson
from engine.http.api.nesting import is_deeper
from engine.http.api.secrets import is_secret, without_secrets
from engine.model.text import MASK, without_nulls

T = TypeVar("T")

DEPTH = 100  #: levels of lists and objects within each other; what looks through bodies may call itself at each
#: Values of a body that is decoded again because it does not fit: each becomes an object, and is copied.
VALUES = 10_000


def decode(body: bytes, kind: type[T], error: type[InvalidField] = InvalidField) -> T:
    """JSON as ``kind``, where a null is as good as nothing. Raises NotJson, and for what does not fit ``error``."""
    if is_deeper(body, DEPTH):
        raise NotJson(f"it is nested too deeply: {DEPTH} levels are allowed")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        return _decode_again(body, kind, error, problem)
    except msgspec.DecodeError as problem:
        raise NotJson(str(problem)) from None


def _decode_again(body: bytes, kind: type[T], error: type[InvalidField], found: msgspec.ValidationError) -> T:
    """What does not fit may do so without its nulls."""
    check_json_text(body)  # it may be broken further on, which comes first
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES:
        hint = f"one does not fit ({found}); leave out nulls, or send fewer to see its value"
        raise error("body", f"more than {VALUES} values", hint)
    try:
        given = without_nulls(msgspec.json.decode(body))
    except msgspec.ValidationError as problem:  # a number such as 1e999
        raise NotJson(str(problem)) from None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as problem:
        raise _misfit(problem, given, kind, error) from None


def _misfit(problem: msgspec.ValidationError, given: Any, kind: Any, error: type[InvalidField]) -> InvalidField:
    found = describe_issue(problem, given, kind)
    value = MASK if is_secret(found.field) and found.value is not None else without_secrets(found.value)
    return error(found.field or "body", value, found.allowed)
