"""Records of the double: the invocations of the journal, as the API and the console read them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from engine.model import Record, State
from engine.model.identity import AHEAD, accepted_at, key_at, true_end
from engine.protocols import NEWEST, Count, Found, Place, Purged, Queued, Scan, Selection, Standing
from tests.doubles.rows import Row, to_record
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryRecords:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self._tables, self._writes = tables, writes

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        page = await self.search(selection, None, selection.offset + selection.limit)
        return page.records[selection.offset :], (await self.count(selection, len(self._tables.rows))).rows

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        placed = [(_sorted(_found_at(row, selection)), row) for row in self._tables.rows.values()]
        spanned = sorted(((place, row) for place, row in placed if _spanned(row, selection)), reverse=back)
        begin = None if start is None else _sorted(start)
        rows = [row for place, row in spanned if begin is None or (place < begin if back else place > begin)]
        matching = [number for number, row in enumerate(rows) if _selected(row, selection)]
        more = len(matching) > limit
        read = rows[: matching[limit - 1] + 1] if more else rows
        records = [_listed(row) for row in read if _selected(row, selection)]
        ends = [_found_at(row, selection) for row in read[:1] + read[-1:]]
        if back:
            records, ends = records[::-1], ends[::-1]
        first, last = ends or (None, None)
        return Found(records=tuple(records), read=len(read), first=first, last=last, more=more)

    async def count(self, selection: Selection, most: int) -> Count:
        rows = sum(_spanned(row, selection) and _selected(row, selection) for row in self._tables.rows.values())
        return Count(rows=min(rows, most), more=rows > most)

    async def get(self, key: int) -> Record | None:
        row = await self._writes.read(lambda: self._tables.rows.get(key))
        return None if row is None else to_record(row)

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        running, ended = frozenset({State.RUNNING}), frozenset(state for state in State if state.final)
        parts = [Selection(function_id=function_id, states=states) for states in (running, ended)]
        pages = [await self.search(part, None, most, back=part.states == running) for part in parts]
        return [replace(record, log=self._tables.rows[record.key].log) for each in pages for record in each.records]

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        caused = sorted(child for child, row in self._tables.rows.items() if row.invocation.cause == key)
        return [_listed(self._tables.rows[child]) for child in caused[:most]]

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

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        delayed = sorted(
            (row.invocation.due_at, row.invocation.function_id) for row in self._tables.rows.values() if row.delayed
        )
        next_due = {function_id: due for due, function_id in reversed(delayed[:most])}
        return {function_id: self._queued(function_id, most, next_due.get(function_id)) for function_id in functions}

    def _queued(self, function_id: int, most: int, next_due: float | None) -> Queued:
        own = [row for row in self._tables.rows.values() if row.invocation.function_id == function_id]
        ready = sorted((row.invocation for row in own if row.ready), key=lambda invocation: invocation.rank_key)
        return Queued(
            ready=min(len(ready), most),
            held=min(sum(row.held for row in own), most),
            first=ready[0].key if ready else None,
            first_due=ready[0].due_at if ready else 0.0,
            next_due=next_due,
        )

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
        and (not selection.codes or row.code in selection.codes)
        and row.code not in selection.without
        and re.search(re.escape(selection.text), row.message, re.ASCII | re.IGNORECASE) is not None
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
        return (NEWEST, 0.0, invocation.key)
    if row.ready or row.delayed:
        return (1, invocation.rank, invocation.key) if row.ready else (2, invocation.due_at, invocation.key)
    return (3 if row.held else 0, 0.0, invocation.key)


def _sorted(place: Place) -> Place:
    """Return a place so that it sorts as in the list: in the last part, the newest is first."""
    part, value, key = place
    return (part, value, -key if part == NEWEST else key)
