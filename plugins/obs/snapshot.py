"""What a trigger knows of its bucket: the state of each object, in the plugin's own durable table.

A list of a bucket is in the order of keys, not of time, so no single position in it says what is new: a change is what
differs from this snapshot. Its rows cannot be written in the transaction that accepts events. So the trigger's cursor,
which is, holds the rows that belong to the last events, and whoever comes next writes them first: no event is missed
or made twice, wherever the engine dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from engine import Event, PluginContext, TriggerContext

BATCH_SIZE = 100  #: events in one transaction; their keys, of 1 KB at most, are in the cursor
PAGE = 1000  #: rows
CURSOR, TRIGGERS = "objects", "triggers"
END = "\U0010ffff"  #: above what keys go on with


class Change(Struct, frozen=True, kw_only=True):
    """A new state of an object, empty if it is gone, and the event of it, if anybody wants one."""

    key: str
    state: str
    payload: bytes | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """The cursor."""

    prefix: str
    since: float  #: what is older is not news, until all objects have been seen once
    whole: bool = False  #: they have
    rows: dict[str, str] = {}  #: what the last events came with; written again at the start


class Snapshot:
    def __init__(self, context: TriggerContext, progress: Progress) -> None:
        self._context, self.progress = context, progress
        self._store, self._table = context.plugin.store, table_of(context.trigger_id)

    async def known(self, keys: Iterable[str]) -> Mapping[str, str]:
        keys = list(keys)
        states = await asyncio.gather(*(self._store.get(self._table, key) for key in keys))
        return {key: state.decode() for key, state in zip(keys, states, strict=True) if state is not None}

    async def between(self, after: str, until: str) -> AsyncIterator[Mapping[str, str]]:
        """Rows above one key and below another, in pages."""
        while rows := await self._store.scan(self._table, after=after, until=until, limit=PAGE):
            yield {key: state.decode() for key, state in rows}
            after = rows[-1][0]

    async def apply(self, changes: Sequence[Change]) -> None:
        """Accept the events and know the states, once each."""
        silent = {change.key: change.state for change in changes if change.payload is None}
        if silent:
            await self._write(silent)
        told = [change for change in changes if change.payload is not None]
        for start in range(0, len(told), BATCH_SIZE):
            part = told[start : start + BATCH_SIZE]
            rows = {change.key: change.state for change in part}
            await self._accept([Event(payload=change.payload or b"") for change in part], rows=rows)
            await self._write(rows)

    async def finish(self) -> None:
        """All objects have been seen: what is unknown from now on is new."""
        if not self.progress.whole:
            self.progress = msgspec.structs.replace(self.progress, whole=True)
            await self._accept([], rows={})

    async def _accept(self, events: Sequence[Event], rows: dict[str, str]) -> None:
        cursor = msgspec.json.encode(msgspec.structs.replace(self.progress, rows=rows))
        await self._context.accept_batch(events, {CURSOR: cursor})

    async def _write(self, rows: Mapping[str, str]) -> None:
        there = {key: state.encode() for key, state in rows.items() if state}
        await self._store.write(self._table, there, [key for key, state in rows.items() if not state])


async def open_snapshot(context: TriggerContext, prefix: str) -> Snapshot:
    """That of a trigger as it was left; another prefix begins anew with what was unknown, from now."""
    store, cursor = context.plugin.store, context.cursors.get(CURSOR)
    fresh = Progress(prefix=prefix, since=context.since)
    if cursor is None or await store.get(TRIGGERS, context.trigger_id) is None:
        await store.write(TRIGGERS, {context.trigger_id: context.function.encode()})
        return Snapshot(context, fresh)
    left = msgspec.json.decode(cursor, type=Progress)
    snapshot = Snapshot(context, left)
    await snapshot._write(left.rows)
    if left.prefix != prefix:
        await _narrow(context.plugin, table_of(context.trigger_id), prefix)
        snapshot.progress = fresh
    return snapshot


async def _narrow(plugin: PluginContext, table: str, prefix: str) -> None:
    """Forget the rows outside a prefix: they are not kept up to date any more."""
    if prefix:
        await _purge(plugin, table, "", prefix)
        await _purge(plugin, table, prefix + END, END * 2)


async def forget_others(plugin: PluginContext, alive: Iterable[str]) -> None:
    """Delete the snapshots of triggers that are gone."""
    rows = await plugin.store.scan(TRIGGERS, limit=1_000_000)
    for trigger_id in {key for key, _ in rows}.difference(alive):
        await _purge(plugin, table_of(trigger_id), "", END * 2)
        await plugin.store.write(TRIGGERS, delete=[trigger_id])


async def _purge(plugin: PluginContext, table: str, after: str, until: str) -> None:
    while await plugin.store.purge(table, until, after=after, limit=PAGE):
        pass


def table_of(trigger_id: str) -> str:
    return f"objects of {trigger_id}"
