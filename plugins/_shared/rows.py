"""Rows of a plugin's tables."""

from __future__ import annotations

from collections.abc import AsyncIterator

from engine import Store


async def rows_of(store: Store, table: str, *, after: str = "", until: str = "") -> AsyncIterator[tuple[str, bytes]]:
    """Yield rows of a table in the order of their keys. The limits of keys are as for ``Store.scan``."""
    while rows := await store.scan(table, after=after, until=until):
        for row in rows:
            yield row
        after = rows[-1][0]
