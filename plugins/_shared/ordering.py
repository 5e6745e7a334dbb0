"""Ordering keys of records: one invocation per key and batch, for triggers with the option ``ordering``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

T = TypeVar("T")

#: ``record_key``: a batch becomes one invocation for each key of its records, with this key as ordering key
Ordering = Annotated[
    Literal["", "record_key"],
    Meta(
        extra={
            "help": "By key: invocations of records with the same key run one after another.",
            "labels": {"": "None", "record_key": "By key"},
        }
    ),
]
LONGEST = 200  #: characters of an ordering key


def ordering_key(key: bytes, partition: str) -> str:
    """Return the ordering key for a record: its key, or ``partition`` if it has none.

    A text that an ordering key cannot be, because it is too long or not printable ASCII, is replaced by its hash.
    """
    text = key.decode("latin-1") or partition
    if len(text) <= LONGEST and text.isascii() and text.isprintable():
        return text
    return f"sha256:{sha256(key or partition.encode()).hexdigest()}"


def by_key(records: Iterable[T], key_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Group records by their ordering keys. Groups, and records of each group, keep their order."""
    groups: dict[str, list[T]] = {}
    for record in records:
        groups.setdefault(key_of(record), []).append(record)
    return groups
