"""Double of the outbox: pending deliveries in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from engine.model import DestinationSpec, Invocation, PendingDelivery
from engine.protocols import Count, DeliveryCount, DeliveryFilter, PresentDestination
from engine.testing.tables import MemoryTables
from engine.testing.writes import MemoryWrites


class MemoryOutbox:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self._tables, self._pending, self._given_up, self._writes = tables, tables.deliveries, tables.given_up, writes

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        self._writes.check()
        waiting = sorted(self._pending.values(), key=lambda pending: pending.due_at)
        each = min(each, max(1, rows // max(1, len({pending.destination for pending in waiting}))))
        due, counts = [], Counter[DestinationSpec]()
        for pending in waiting:
            if pending.due_at <= now and counts[pending.destination] < each:
                counts[pending.destination] += 1
                due.append(pending)
        return due, min((pending.due_at for pending in waiting if pending.due_at > now), default=None)

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        self._writes.check()
        self._pending.pop(pending.delivery_id, None)
        if append is not None:
            self._tables.append(append)

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        self._writes.check()
        stored = self._pending[pending.delivery_id]
        if stored.since != pending.since:
            return
        changed = replace(stored, tries=stored.tries + 1, error=error)
        if due_at is None:
            self._given_up[pending.delivery_id] = replace(changed, due_at=math.inf)
            del self._pending[pending.delivery_id]
        else:
            self._pending[pending.delivery_id] = replace(changed, due_at=due_at)

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        found = [pending for _, pending in sorted(self._given_up.items()) if pending.function_id in functions]
        return found[offset : offset + limit], len(found)

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        _, count = await self.given_up(functions, 0, 0)
        return Count(rows=min(count, most), more=count > most)

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        stored = self._given_up if chosen.given_up else self._pending
        found = [
            one
            for id, one in sorted(stored.items())
            if id > after and one.function_id in chosen.functions and chosen.destination in (None, one.destination)
        ]
        return found[:limit], found[limit - 1].delivery_id if len(found) > limit else 0

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        found = Counter(
            (one.function_id, one.destination, stored is self._given_up)
            for stored in (self._pending, self._given_up)
            for id, one in stored.items()
            if id > after and one.function_id in functions
        )
        return [
            DeliveryCount(function_id=function_id, destination=destination, given_up=given_up, count=count)
            for (function_id, destination, given_up), count in found.items()
        ], 0

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        self._writes.check()
        stored = self._pending | self._given_up
        return [one for _, one in sorted(stored.items()) if one.key == key]

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: PresentDestination | None = None
    ) -> Sequence[PendingDelivery]:
        self._writes.check()
        stored = self._pending | self._given_up
        ids = sorted(id for id, pending in stored.items() if id in ids and pending.function_id in functions)
        if present is not None:
            rows = ((id, self._tables.rows.get(stored[id].key), stored[id].condition) for id in ids)
            found = {id: present(stored[id].function_id, row.invocation.version, at) for id, row, at in rows if row}
            stored |= {id: replace(stored[id], destination=one) for id, one in found.items() if one}
            ids = [id for id, one in found.items() if one]
        for id in ids:
            self._pending[id] = replace(stored[id], due_at=now, since=now, tries=0)
            self._given_up.pop(id, None)
        return [self._pending[id] for id in ids]

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        self._writes.check()
        stored = self._given_up if given_up else self._pending
        ids = sorted(id for id, one in stored.items() if id in ids and one.function_id in functions)
        for id in ids:
            del stored[id]
        return ids
