"""Outbox of the double: pending deliveries in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from engine.model import DestinationSpec, Invocation, PendingDelivery
from engine.protocols import Count, DeliveryCount, DeliveryFilter, PresentDestination
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

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        matching = [pending for _, pending in sorted(self._given_up.items()) if pending.function_id in functions]
        return matching[offset : offset + limit], len(matching)

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        _, count = await self.given_up(functions, 0, 0)
        return Count(rows=min(count, most), more=count > most)

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        stored = self._given_up if chosen.given_up else self._pending
        matching = [
            pending
            for id, pending in sorted(stored.items())
            if id > after
            and pending.function_id in chosen.functions
            and chosen.destination in (None, pending.destination)
        ]
        return matching[:limit], matching[limit - 1].delivery_id if len(matching) > limit else 0

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        sums = Counter(
            (pending.function_id, pending.destination, stored is self._given_up)
            for stored in (self._pending, self._given_up)
            for id, pending in stored.items()
            if id > after and pending.function_id in functions
        )
        return [
            DeliveryCount(function_id=function_id, destination=destination, given_up=given_up, count=count)
            for (function_id, destination, given_up), count in sums.items()
        ], 0

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        self._writes.check()
        stored = self._pending | self._given_up
        return [pending for _, pending in sorted(stored.items()) if pending.key == key]

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: PresentDestination | None = None
    ) -> Sequence[PendingDelivery]:
        def apply() -> Sequence[PendingDelivery]:
            stored = self._pending | self._given_up
            revived = list[PendingDelivery]()
            for pending in [stored[id] for id in sorted(stored.keys() & ids) if stored[id].function_id in functions]:
                destination: DestinationSpec | None = pending.destination
                if present is not None:
                    row = self._tables.rows.get(pending.key)
                    destination = None
                    if row is not None:
                        destination = present(pending.function_id, row.invocation.version, pending.condition)
                if destination is not None:
                    revived.append(replace(pending, destination=destination, due_at=now, since=now, tries=0))
            for pending in revived:
                self._tables.remove_delivery(pending.delivery_id)
                self._given_up.pop(pending.delivery_id, None)
                self._tables.put_delivery(pending)
            return revived

        return await self._writes.call(apply)

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        def apply() -> Sequence[int]:
            stored = self._given_up if given_up else self._pending
            discarded = sorted(id for id in stored.keys() & ids if stored[id].function_id in functions)
            for id in discarded:
                self._tables.remove_delivery(id)
                self._given_up.pop(id, None)
            return discarded

        return await self._writes.call(apply)
