"""Row logs: row numbers, failed writes and deleted logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from msgspec import Struct

from engine.errors import DiskLow
from engine.testing import MemoryStore
from plugins._shared.row_log import RowLogs


class Row(Struct, frozen=True, array_like=True):
    at: int
    text: str

    @property
    def size(self) -> int:
        return len(self.text)


class FullStore(MemoryStore):
    """Store that rejects writes while ``full`` is set."""

    full = False

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        if self.full:
            raise DiskLow(0, 1)
        await super().write(table, put, delete)


async def opened(store: MemoryStore) -> RowLogs[Row]:
    logs = RowLogs(store, "rows", Row, lambda: 0.0)
    await logs.load("a")
    return logs


async def test_numbers_are_not_used_again_though_the_disk_refused_the_last_one_and_the_rest_has_gone() -> None:
    store = FullStore()
    logs = await opened(store)
    await logs.append([("a", Row(at=0, text="1")), ("a", Row(at=0, text="2"))])
    store.full = True
    with pytest.raises(DiskLow):
        await logs.append([("a", Row(at=0, text="refused"))])
    store.full = False
    await logs.cut("a", logs.span("a")[1])

    later = await opened(store)

    assert await later.append([("a", Row(at=0, text="3"))]) == [2]
    assert await later.read("a", 2, 99) == ([(2, Row(at=0, text="3"))], 3)
