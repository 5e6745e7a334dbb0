"""Meanings of settings, read from the ``#:`` comments beside the fields of the settings classes."""

from __future__ import annotations

import re
from inspect import getsource

import msgspec
from msgspec import Struct

_FIELD = re.compile(r"    (\w+): (?:.*?  #: (.*))?")
_COMMENT = re.compile(r"    #: (.*)")


def meanings_of(section: type[Struct], prefix: str) -> dict[str, str]:
    """Return the meaning of each setting in ``section`` and in the structs nested in it.

    The keys are full names, such as ``auth.file``: ``prefix``, then the names of the enclosing fields and of the field
    itself, joined by dots.
    """
    found: dict[str, str] = {}
    comments = _comments(section)
    shape = msgspec.inspect.type_info(section)
    assert isinstance(shape, msgspec.inspect.StructType)
    for field in shape.fields:
        name = f"{prefix}{field.name}"
        match field.type:
            case msgspec.inspect.StructType(cls):
                found |= meanings_of(cls, f"{name}.")
            case msgspec.inspect.DictType(value_type=msgspec.inspect.StructType(cls)):
                found |= meanings_of(cls, f"{name}.<entry>.")
            case _:
                found[name] = comments.get(field.name, "").replace("``", "`").replace("|", "\\|")
    return found


def _comments(section: type[Struct]) -> dict[str, str]:
    """Return the ``#:`` comment of each field of a struct, including fields of its base classes."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Struct) and kind is not Struct:
            found |= _comments_of(getsource(kind))
    return found


def _comments_of(source: str) -> dict[str, str]:
    """Return the ``#:`` comment of each field in the source text of a class.

    A comment stands on the line of its field, or on the lines before it.
    """
    found: dict[str, str] = {}
    before: list[str] = []
    for line in source.splitlines():
        if comment := _COMMENT.fullmatch(line):
            before.append(comment[1])
        elif field := _FIELD.match(line):
            found[field[1]] = field[2] or " ".join(before)
            before = []
        else:
            before = []
    return found
