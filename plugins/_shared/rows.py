"""Rows of a plugin's tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from engine import Store, StoredDataUnreadable

T = TypeVar("T")


async def rows_of(store: Store, table: str, *, after: str = "", until: str = "") -> AsyncIterator[tuple[str, bytes]]:
    """Yield rows of a table in the order of their keys. The limits of keys are as for ``scan``."""
    while rows := await store.scan(table, after=after, until=until):
        for row in rows:
            yield row
        after = rows[-1][0]


async def decoded_rows(store: Store, table: str, type: type[T]) -> AsyncIterator[tuple[str, T]]:
    """Yield the keys and values of all rows of a table whose values are JSON. Raises the error of ``decode_row``."""
    async for key, value in rows_of(store, table):
        yield key, decode_row(table, key, value, type)


def decode_row(table: str, key: str, value: bytes, type: type[T]) -> T:
    """Return the value of a row that is JSON. Raises StoredDataUnreadable if it is not what ``type`` demands."""
    try:
        return msgspec.json.decode(value, type=type)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoredDataUnreadable(f"the row {key} of the table {table}", str(error)) from error
