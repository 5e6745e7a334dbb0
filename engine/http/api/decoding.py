"""Decoding of JSON request bodies into structs. Errors name the invalid field, its value, and the allowed values.

The allowed values are read from the types of the struct's fields. Validation, the OpenAPI document and error messages
therefore share one definition of each limit.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from engine.asgi.wire import check_json_text
from engine.config.validation import describe_issue
from engine.errors import InvalidField, NotJson, UnknownField
from engine.http.api.nesting import is_deeper
from engine.http.api.secrets import is_secret, without_secrets
from engine.model.text import MASK, without_nulls

T = TypeVar("T")

DEPTH = 100  #: levels of nested lists and objects; limits the recursion of code that walks a body
#: Largest number of values in a body that is decoded again; each value becomes an object and is copied.
VALUES = 10_000


def decode(body: bytes, kind: type[T], error: type[InvalidField] = InvalidField) -> T:
    """Decode a JSON body as ``kind``. A field with the value null counts as absent if its type does not allow null.

    Raises NotJson if the body is not JSON or is nested too deeply, and ``error`` if a field has an invalid value.
    """
    if is_deeper(body, DEPTH):
        raise NotJson(f"nested too deeply; at most {DEPTH} levels are allowed")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        return _decode_again(body, kind, error, problem)
    except msgspec.DecodeError as problem:
        raise NotJson(str(problem)) from None


def _decode_again(body: bytes, kind: type[T], error: type[InvalidField], found: msgspec.ValidationError) -> T:
    """Decode a body again without its nulls. Called if the first attempt failed with ``found``.

    Raises NotJson if the body is not valid JSON, and ``error`` if a value other than null is invalid, or if the body
    has too many values for a second attempt.
    """
    check_json_text(body)  # invalid JSON further on is reported first
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES:
        hint = f"one value is invalid ({found}); leave out nulls, or send fewer values to see it"
        raise error("body", f"more than {VALUES} values", hint)
    try:
        whole = msgspec.json.decode(body)
    except msgspec.ValidationError as problem:  # a number such as 1e999
        raise NotJson(str(problem)) from None
    given = without_nulls(whole)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as problem:
        if "`raw`" in str(problem):  # only a decoder knows msgspec.Raw, so another field is invalid
            raise invalid_field(found, whole, kind, error) from None
        raise invalid_field(problem, given, kind, error) from None


def invalid_field(
    problem: msgspec.ValidationError, given: Any, kind: Any, error: type[InvalidField] = InvalidField
) -> InvalidField:
    """Return the error for ``problem``, which msgspec raised when it decoded ``given`` as ``kind``."""
    found = describe_issue(problem, given, kind)
    if found.hint:
        return UnknownField(found.field, None, found.hint)
    value = MASK if is_secret(found.field) and found.value is not None else without_secrets(found.value)
    return error(found.field or "body", value, found.allowed)
