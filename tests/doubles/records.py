"""Records of the double, without searches, counts and queues, which are tested on SQLite only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from engine.model import Record, State
from engine.model.identity import AHEAD, accepted_at, key_at, true_end
from engine.protocols import NEWEST, Place, Purged, Scan, Selection, Standing
from tests.doubles.rows import Row, to_record
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryRecords:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self._tables, self._writes = tables, writes

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        rows = [row for row in self._tables.rows.values() if _spanned(row, selection) and _selected(row, selection)]
        rows.sort(key=lambda row: _found_at(row, selection))
        return [_listed(row) for row in rows[selection.offset :][: selection.limit]], len(rows)

    async def get(self, key: int) -> Record | None:
        row = await self._writes.read(lambda: self._tables.rows.get(key))
        return None if row is None else to_record(row)

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        placed = ((_place(row), row) for row in self._tables.rows.values() if row.state is State.WAIT)
        places = sorted(
            (place, row.invocation.key)
            for place, row in placed
            if place > after and _spanned(row, selection) and _selected(row, replace(selection, states=frozenset()))
        )
        page = places[:limit]
        return Scan(keys=tuple(key for _, key in page), reached=page[-1][0] if len(page) == limit else None)

    async def standing(self, key: int, most: int) -> Standing:
        row = self._tables.rows.get(key)
        if row is not None and row.held:
            return Standing(predecessor=self._predecessor(row))
        if row is None or not row.ready:
            return Standing(begun=row is not None and row.state is State.RUNNING and row.begun)
        own = row.invocation
        ready = (other.invocation for other in self._tables.rows.values() if other.ready)
        ahead = sum(other.function_id == own.function_id and other.rank_key < own.rank_key for other in ready)
        return Standing(ahead=min(ahead, most))

    def _predecessor(self, row: Row) -> int:
        key = row.invocation.key
        others = [other for other in self._tables.unended(row.invocation) if other is not row]
        held = [other.invocation.key for other in others if other.held and other.invocation.key < key]
        return max(held or [other.invocation.key for other in others if not other.held])

    async def newest(self, before: float) -> float | None:
        return max((accepted_at(key) for key in self._tables.rows if key < key_at(before)), default=None)

    async def purge(self, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        return await self._writes.call(lambda: self._purge(now, age, rows, size, ahead))

    def _purge(self, now: float, age: float, rows: int, size: int, ahead: float) -> Purged:
        self._tables.drop_expired_keys(now)
        ended, dropped, oldest = len(self._tables.ended), list[Row](), list[float]()
        for key, row in sorted(self._tables.ended.items()):
            row.ended_at = true_end(row.ended_at or 0.0, now + ahead)
            over = len(self._tables.ended) > rows or self._tables.ended_size > size
            counted = _age_from(row, now)
            if not self._tables.undelivered[key] and (over or counted <= now - age):
                dropped.append(self._tables.drop(key))
            else:
                oldest.append(counted)
        self._tables.observer.purged(dropped, ended)
        invocations = [row.invocation for row in dropped]
        return Purged(
            request_ids=tuple(invocation.request_id for invocation in invocations),
            functions=tuple(invocation.function_id for invocation in invocations),
            more=False,
            over=len(self._tables.ended) > rows or self._tables.ended_size > size,
            next_due=min(oldest) + age if oldest else None,
            attempts={
                invocation.request_id: invocation.attempt for invocation in invocations if invocation.attempt > 1
            },
        )


def _listed(row: Row) -> Record:
    return replace(to_record(row), payload=b"", result=b"", log=b"", attempts=(), trace="", cause=0)


def _age_from(row: Row, now: float) -> float:
    """Return the time from which the age of an ended invocation counts, see ``Records.purge``."""
    accepted, ended = row.invocation.accepted_at, row.ended_at or now
    return max(accepted, ended) if accepted <= now + AHEAD else ended


def _spanned(row: Row, selection: Selection) -> bool:
    key, own = row.invocation.key, row.invocation.function_id == selection.function_id
    ends = math.inf if selection.end == math.inf else key_at(selection.end)
    ends = ends if selection.below is None else min(ends, selection.below)
    return bool(own or selection.functions) and max(key_at(selection.begin), selection.since) <= key < ends


def _selected(row: Row, selection: Selection) -> bool:
    return (
        (not selection.functions or row.invocation.function_id in selection.functions)
        and selection.version in ("", row.invocation.version)
        and selection.source in ("", row.invocation.source)
        and selection.trigger_id in ("", row.invocation.trigger_id)
        and selection.alias in ("", row.invocation.alias)
        and (not selection.states or row.state in selection.states)
        and (selection.keys is None or row.invocation.key in selection.keys)
    )


def _place(row: Row) -> Place:
    invocation = row.invocation
    if row.held:
        return (0, invocation.key, invocation.key)
    return (1, invocation.rank, invocation.key) if row.ready else (2, invocation.due_at, invocation.key)


def _found_at(row: Row, selection: Selection) -> Place:
    """Return the place in a list: running, ready, delayed, held, then ended ones. Several functions have one part."""
    invocation = row.invocation
    if selection.functions or row.state.final:
        return (NEWEST, 0.0, -invocation.key)
    if row.ready or row.delayed:
        return (1, invocation.rank, invocation.key) if row.ready else (2, invocation.due_at, invocation.key)
    return (3 if row.held else 0, 0.0, invocation.key)
