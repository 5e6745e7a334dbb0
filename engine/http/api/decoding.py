"""A body as a shape; what does not fit is told as the field, the value, and what would do.

What would do is read from the shape itself, so that a limit that stands there validates, documents and explains.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from engine.errors import InvalidField, NotJson
from engine.http.api.secrets import is_secret, without_secrets
from engine.http.wire import check_json_text
from engine.misfits import misfit
from engine.text import MASK, without_nulls

T = TypeVar("T")

DEPTH = 100  #: levels of lists and objects within each other; what looks through bodies may call itself at each

#: For sound JSON only: a text without an end would be searched again and again.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_TOO_DEEP = f"it is nested too deeply: {DEPTH} levels are allowed"


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
    try:
        given = without_nulls(msgspec.json.decode(body))
    except msgspec.ValidationError as problem:  # a number such as 1e999
        raise NotJson(str(problem)) from None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as problem:
        raise _misfit(problem, given, kind, error) from None


def _check_depth(body: bytes) -> None:
    """Raises NotJson. What has few brackets, such as a large package, is not looked through."""
    if body.count(b"{") + body.count(b"[") <= DEPTH:
        return
    brackets = _TEXT.sub(b"", body).translate(_BRACKETS, _OTHERS)
    for _ in range(DEPTH):  # the innermost level goes
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise NotJson(_TOO_DEEP)


def _misfit(problem: msgspec.ValidationError, given: Any, kind: Any, error: type[InvalidField]) -> InvalidField:
    found = misfit(problem, given, kind)
    value = MASK if is_secret(found.field) and found.value is not None else without_secrets(found.value)
    return error(found.field or "body", value, found.allowed)
