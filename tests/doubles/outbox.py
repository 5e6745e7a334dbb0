"""Outbox of the double, without lists, redrives and removals of deliveries, which are tested on SQLite only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from engine.model import Invocation, PendingDelivery
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryOutbox:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self._tables, self._pending, self._given_up, self._writes = tables, tables.deliveries, tables.given_up, writes

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        return await self._writes.call(lambda: self._tables.due_deliveries(now, rows, each))

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        def apply() -> None:
            self._tables.remove_delivery(pending.delivery_id)
            self._tables.observer.delivered(pending, append)
            if append is not None:
                self._tables.append(append)
                self._tables.observer.stored(append, "")

        await self._writes.call(apply)
        if append is not None and not append.delayed:
            self._tables.observer.available(append)

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        def apply() -> None:
            stored = self._pending.get(pending.delivery_id)
            if stored is None or stored.since != pending.since:
                return
            self._tables.observer.postponed(stored, due_at)
            self._tables.remove_delivery(pending.delivery_id)
            changed = replace(stored, tries=stored.tries + 1, error=error)
            if due_at is None:
                self._given_up[pending.delivery_id] = replace(changed, due_at=math.inf)
            else:
                self._tables.put_delivery(replace(changed, due_at=due_at))

        await self._writes.call(apply)

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        self._writes.check()
        stored = self._pending | self._given_up
        return [pending for _, pending in sorted(stored.items()) if pending.key == key]
