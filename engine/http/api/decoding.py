"""Decoding of JSON request bodies into structs. Errors name the invalid field, its value, and the allowed values.

The allowed values are read from the types of the struct's fields. Validation, the OpenAPI document and error messages
therefore share one definition of each limit.

The nesting depth of a body is found in one pass before it is decoded. The text is processed in blocks, so that only one
reduced copy of a block is in memory. A block is reduced to its brackets: first escapes are removed, then all characters
but brackets and quotes, then everything inside strings. A table of all sequences of eight brackets gives the change of
level and the highest level of each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import add
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from engine.asgi.wire import check_json_text
from engine.config.validation import describe_issue
from engine.errors import InvalidField, NotJson, UnknownField
from engine.http.api.secrets import is_secret, without_secrets
from engine.model.text import MASK, without_nulls

T = TypeVar("T")

DEPTH = 100  #: levels of nested lists and objects; limits the recursion of code that walks a body
#: Largest number of values in a body that is decoded again; each value becomes an object and is copied.
VALUES = 10_000
BLOCK = 1 << 16  #: bytes that are reduced at a time

#: An opening bracket becomes 1, a closing one 0; quotes stay.
_DIGITS = bytes.maketrans(b"{[}]", b"1100")
_OTHERS = bytes(set(range(256)) - set(b'{[}]"'))


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


def _decode_again(body: bytes, kind: type[T], error: type[InvalidField], first_error: msgspec.ValidationError) -> T:
    """Decode a body again without its nulls. Called if the first attempt failed with ``first_error``.

    Raises NotJson if the body is not valid JSON, and ``error`` if a value other than null is invalid, or if the body
    has too many values for a second attempt.
    """
    check_json_text(body)  # invalid JSON further on is reported first
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES:
        hint = f"one value is invalid ({first_error}); leave out nulls, or send fewer values to see it"
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
            raise invalid_field(first_error, whole, kind, error) from None
        raise invalid_field(problem, given, kind, error) from None


def given_fields(body: Struct, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of those of the fields ``names`` that a body has and sets."""
    values = {name: getattr(body, name, UNSET) for name in names}
    return {name: value for name, value in values.items() if value is not UNSET}


def invalid_field(
    problem: msgspec.ValidationError, given: Any, kind: Any, error: type[InvalidField] = InvalidField
) -> InvalidField:
    """Return the error for ``problem``, which msgspec raised when it decoded ``given`` as ``kind``."""
    issue = describe_issue(problem, given, kind)
    if issue.hint:
        return UnknownField(issue.field, None, issue.hint)
    value = MASK if is_secret(issue.field) and issue.value is not None else without_secrets(issue.value)
    return error(issue.field or "body", value, issue.allowed)


def _heights(brackets: int) -> list[int]:
    """Return the nesting level after each of eight brackets, relative to the level before the first.

    Each bit of ``brackets`` is one bracket: 1 opens, 0 closes; the highest bit is the first.
    """
    return list(accumulate(1 if brackets >> bit & 1 else -1 for bit in reversed(range(8))))


#: For each sequence of eight brackets: change of level after the last, as a signed byte; and highest level reached.
_RISES = bytes(_heights(brackets)[-1] & 0xFF for brackets in range(256))
_PEAKS = bytes(max(0, *_heights(brackets)) for brackets in range(256))


def is_deeper(text: bytes, levels: int) -> bool:
    """Return whether lists and objects are nested in more than ``levels`` levels.

    If ``text`` is not valid JSON, the result may be wrong for the part after its first error.
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth, quoted = 0, False
    for block in _blocks(text):
        parts = _reduced(block).split(b'"')
        digits = b"".join(parts[quoted::2])
        quoted ^= len(parts) % 2 == 0
        opening = digits.count(b"1")
        if depth + opening > levels and _peak(digits, depth) > levels:
            return True
        depth += 2 * opening - len(digits)
    return False


def _blocks(text: bytes) -> Iterator[bytes]:
    """Yield ``text`` in blocks, none of which ends between a backslash and the character that it escapes."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:
            block += text[start + BLOCK : start + BLOCK + 1]
        yield block
        start += len(block)


def _reduced(block: bytes) -> bytes:
    """Return only the brackets and quotes of ``block``: an opening bracket as ``1``, a closing one as ``0``.

    Two quotes without a bracket between them are both removed.
    """
    if b"\\" in block:
        block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
    return block.translate(_DIGITS, _OTHERS).replace(b'""', b"")


def _peak(digits: bytes, depth: int) -> int:
    """Return the highest nesting level that ``digits`` reach, starting at level ``depth``.

    In ``digits``, 1 is an opening bracket and 0 a closing one.
    """
    size = (len(digits) + 7) // 8
    brackets = int(digits.ljust(8 * size, b"0"), 2).to_bytes(size, "big")
    before = accumulate(array("b", brackets.translate(_RISES)), initial=depth)
    peaks: map[int] = map(add, before, brackets.translate(_PEAKS))
    return max(peaks)
