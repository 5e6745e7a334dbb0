"""Double of the store of one plugin: tables in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.testing.writes import MemoryWrites


class MemoryStore:
    def __init__(self, writes: MemoryWrites | None = None) -> None:
        self._writes = writes or MemoryWrites()
        self._tables: dict[str, dict[str, bytes]] = {}

    async def get(self, table: str, key: str) -> bytes | None:
        self._writes.check()
        return self._tables.get(table, {}).get(key)

    async def scan(
        self,
        table: str,
        *,
        after: str = "",
        until: str = "",
        limit: int = 1000,
        newest: bool = False,
    ) -> Sequence[tuple[str, bytes]]:
        self._writes.check()
        rows = self._tables.get(table, {})
        keys = sorted((key for key in rows if key > after and (not until or key < until)), reverse=newest)
        return [(key, rows[key]) for key in keys[:limit]]

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        self._writes.check()
        rows = self._tables.setdefault(table, {})
        for key in delete:
            rows.pop(key, None)
        rows.update(put or {})

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        self._writes.check()
        rows = self._tables.get(table, {})
        purged = sorted(key for key in rows if after < key < until)[:limit]
        for key in purged:
            del rows[key]
        return len(purged)
