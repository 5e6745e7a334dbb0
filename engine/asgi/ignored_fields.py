"""Fields of a request body that its operation does not have, and therefore ignores.

Clients of the vendor send fields that this engine has no use for, so such fields cannot be refused. A header of the
reply names them, and each is logged once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import msgspec
import structlog
from msgspec import Raw, inspect

from engine.asgi.wire import HeaderPairs

HEADER = b"X-Functiond-Ignored-Fields"
MOST_NAMES = 10  #: names that are found in one body
LONGEST_BODY = 64 << 10  #: bytes of a body that is searched; the search runs on the event loop
MOST_ENTRIES = 20  #: entries of a list that are searched
LONGEST_NAME = 60  #: characters
MOST_LOGGED = 1_000  #: names that are logged

#: Names of the fields of a struct, each with those of the structs in its value; None: it holds none.
Fields = Mapping[str, "Fields | None"]

log = structlog.get_logger("functiond.api")


class IgnoredFields:
    """Report of ignored fields: a header for each reply, and a log in which each field is once."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def report(self, operation: str, names: Sequence[str]) -> HeaderPairs:
        """Log those of ``names`` that are new, and return the header that names all; no header without names."""
        new = [name for name in names if (operation, name) not in self._logged]
        if new and len(self._logged) < MOST_LOGGED:
            self._logged.update((operation, name) for name in new)
            log.info("unknown fields ignored", operation=operation, fields=new)
        return ((HEADER, ", ".join(names).encode()),) if names else ()


def find_ignored(body: bytes, kind: Any) -> list[str]:
    """Return the paths of fields in a body that ``kind``, as which it was decoded, does not have.

    A field with the value null counts as absent.
    """
    fields = _fields_of_kind(kind) if len(body) <= LONGEST_BODY else None
    if fields is None:
        return []
    return list(dict.fromkeys(islice(_ignored(body.lstrip(), fields, ""), MOST_NAMES)))


def _ignored(text: bytes | Raw, fields: Fields, path: str) -> Iterator[str]:
    first = bytes(memoryview(text)[:1])
    if first == b"[":
        for entry in msgspec.json.decode(text, type=list[Raw])[:MOST_ENTRIES]:
            yield from _ignored(entry, fields, path)
    elif first == b"{":
        for name, value in msgspec.json.decode(text, type=dict[str, Raw]).items():
            if name not in fields:
                if bytes(memoryview(value)[:5]) != b"null":
                    yield path + _shown(name)
            elif (inner := fields[name]) is not None:
                yield from _ignored(value, inner, f"{path}{name}.")


def _shown(name: str) -> str:
    """Return a name as a header may have it."""
    text = ascii(name)[1:-1].replace(",", "\\x2c")
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "..."


@cache
def _fields_of_kind(kind: Any) -> Fields | None:
    return _fields_of(inspect.type_info(kind))


def _fields_of(kind: inspect.Type) -> Fields | None:
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: _fields_of(field.type) for field in kind.fields}
    if isinstance(kind, inspect.Metadata):
        return _fields_of(kind.type)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return _fields_of(kind.item_type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_fields_of, kind.types)), None)
    return None
