"""Records and outbox of the simulated storage."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from random import Random

from msgspec.structs import replace

from bench.proof.simulation.storage_witness import Witness
from bench.proof.simulation.tables import Tables
from bench.proof.simulation.writes import Writes
from engine.model import Invocation, PendingDelivery, Record
from engine.protocols import (
    Count,
    DeliveryCount,
    DeliveryFilter,
    Found,
    Place,
    PresentDestination,
    Purged,
    Queued,
    Scan,
    Selection,
    Standing,
)
from engine.testing.rows import newest, to_record


class SimulatedRecords:
    incomplete = False

    def __init__(self, tables: Tables, writes: Writes, witness: Witness, random: Random) -> None:
        self._tables, self._writes, self._witness, self._random = tables, writes, witness, random

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        return [], 0  # the components of the simulation list no records

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        return Found(records=(), read=0)

    async def count(self, selection: Selection, most: int) -> Count:
        return Count(rows=0)

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        return ()

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        return ()

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        return Scan(keys=tuple(self._tables.waiting(selection.function_id)[:limit]), reached=None)

    async def standing(self, key: int, most: int) -> Standing:
        return Standing()

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        return {}

    async def newest(self, before: float) -> float | None:
        return newest(self._tables.rows, before)

    async def get(self, key: int) -> Record | None:
        await asyncio.sleep(self._random.choice((0.0, 0.001)))
        row = self._tables.rows.get(key)
        return None if row is None else to_record(row)

    async def purge(self, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        def apply() -> Purged:
            kept = len(self._tables.ended)
            dropped, more, due = self._tables.purge(now, age, rows)
            self._witness.purged(dropped, kept)
            ids = tuple(row.invocation.request_id for row in dropped)
            return Purged(request_ids=ids, more=more, next_due=due)

        return await self._writes.call(apply)


class SimulatedOutbox:
    def __init__(self, tables: Tables, writes: Writes, witness: Witness) -> None:
        self._tables, self._writes, self._witness = tables, writes, witness

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        return await self._writes.call(lambda: self._tables.due_deliveries(now, each))

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        def apply() -> None:
            self._tables.remove_delivery(pending.delivery_id)
            self._witness.delivered(pending, append)
            if append is not None:
                self._tables.append(append)
                self._witness.stored(append, "")

        await self._writes.call(apply)
        if append is not None and not append.delayed:
            self._witness.available(append)

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        def apply() -> None:
            stored = self._tables.remove_delivery(pending.delivery_id)
            if stored is None:
                return
            self._witness.postponed(stored, due_at)
            changed = replace(stored, tries=stored.tries + 1, error=error)
            if due_at is None:
                self._tables.given_up[pending.delivery_id] = changed
            else:
                self._tables.put_delivery(replace(changed, due_at=due_at))

        await self._writes.call(apply)

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        return [], 0  # the components of the simulation list no deliveries, like the next methods

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        return Count(rows=0)

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        return [], 0

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        return [], 0

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        return []

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        return []

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: PresentDestination | None = None
    ) -> Sequence[PendingDelivery]:
        return []
