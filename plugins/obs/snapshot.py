"""Snapshot of a trigger's bucket: the last state of each object, as a row in the plugin's own durable table.

A list of a bucket is sorted by key, not by time, so no position in it separates new objects from old ones. A change is
therefore a difference from this snapshot. The snapshot's rows cannot be written in the transaction that accepts events,
but the trigger's cursor can. The cursor therefore contains the rows of the last accepted events, and the next run of
the source writes them to the table first. No event is lost or repeated, wherever the engine is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from engine import Event, PluginContext, TriggerContext

BATCH_SIZE = 100  #: events in one transaction; the cursor holds their keys, each at most 1 KiB
PAGE = 1000  #: rows
CURSOR, TRIGGERS = "objects", "triggers"
END = "\U0010ffff"  #: above every character of a key


class Change(Struct, frozen=True, kw_only=True):
    """Change of one object: its new state, empty if it was removed, and its event, if the trigger wants one."""

    key: str
    state: str
    payload: bytes | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """Cursor of the trigger: progress of the first comparison, and rows that may be missing in the snapshot's table."""

    prefix: str
    since: float  #: older objects are no events until the first comparison is complete
    whole: bool = False  #: the first comparison is complete
    rows: dict[str, str] = {}  #: rows of the last events; written again at the start
    folder: str = ""  #: identity of the folder that was compared


class Snapshot:
    """Stored states of the objects in one trigger's bucket."""

    def __init__(self, context: TriggerContext, progress: Progress) -> None:
        self._context, self.progress = context, progress
        self._store, self._table = context.plugin.store, table_of(context.trigger_id)

    async def states(self, keys: Iterable[str]) -> Mapping[str, str]:
        keys = list(keys)
        states = await asyncio.gather(*(self._store.get(self._table, key) for key in keys))
        return {key: state.decode() for key, state in zip(keys, states, strict=True) if state is not None}

    async def between(self, after: str, until: str) -> AsyncIterator[Mapping[str, str]]:
        """Yield pages of rows whose keys are above ``after`` and below ``until``."""
        while rows := await self._store.scan(self._table, after=after, until=until, limit=PAGE):
            yield {key: state.decode() for key, state in rows}
            after = rows[-1][0]

    async def apply(self, changes: Sequence[Change]) -> None:
        """Accept the events of changes, and store the new states of the objects.

        Each event is accepted exactly once.
        """
        silent = {change.key: change.state for change in changes if change.payload is None}
        if silent:
            await self._write(silent)
        events = [change for change in changes if change.payload is not None]
        for start in range(0, len(events), BATCH_SIZE):
            part = events[start : start + BATCH_SIZE]
            rows = {change.key: change.state for change in part}
            await self._accept([Event(payload=change.payload or b"") for change in part], rows=rows)
            await self._write(rows)

    async def finish(self) -> None:
        """Store that the first comparison is complete. Every object that is not in the snapshot is new afterwards."""
        if not self.progress.whole:
            self.progress = msgspec.structs.replace(self.progress, whole=True)
            await self._accept([], rows={})

    async def enter(self, identity: str) -> bool:
        """Store the identity of the folder that is compared. Return whether it was another one before."""
        folder, before = identity.partition(" of device")[0], self.progress.folder  # devices may be numbered anew
        if before != folder:
            self.progress = msgspec.structs.replace(self.progress, folder=folder)
            await self._accept([], rows={})
        return before not in ("", folder)

    async def _accept(self, events: Sequence[Event], rows: dict[str, str]) -> None:
        cursor = msgspec.json.encode(msgspec.structs.replace(self.progress, rows=rows))
        await self._context.accept_batch(events, {CURSOR: cursor})

    async def _write(self, rows: Mapping[str, str]) -> None:
        present = {key: state.encode() for key, state in rows.items() if state}
        await self._store.write(self._table, present, [key for key, state in rows.items() if not state])


async def open_snapshot(context: TriggerContext, prefix: str) -> Snapshot:
    """Return the stored snapshot of a trigger, or a new one. ``prefix`` is the trigger's present prefix of keys.

    After a change of the prefix, rows of objects outside the new prefix are deleted. In the next comparison, objects
    without a row count as new only if they were created after the change.
    """
    store, cursor = context.plugin.store, context.cursors.get(CURSOR)
    fresh = Progress(prefix=prefix, since=context.since)
    if cursor is None or await store.get(TRIGGERS, context.trigger_id) is None:
        await store.write(TRIGGERS, {context.trigger_id: context.function.encode()})
        return Snapshot(context, fresh)
    stored = msgspec.json.decode(cursor, type=Progress)
    snapshot = Snapshot(context, stored)
    await snapshot._write(stored.rows)
    if stored.prefix != prefix:
        await _narrow(context.plugin, table_of(context.trigger_id), prefix)
        snapshot.progress = fresh
    return snapshot


async def _narrow(plugin: PluginContext, table: str, prefix: str) -> None:
    """Delete the snapshot's rows of objects outside a prefix, since no comparison updates them any more."""
    if prefix:
        await _purge(plugin, table, "", prefix)
        await _purge(plugin, table, prefix + END, END * 2)


async def forget_others(plugin: PluginContext, alive: Iterable[str]) -> None:
    """Delete the snapshots of all triggers except those whose ids are in ``alive``."""
    rows = await plugin.store.scan(TRIGGERS, limit=1_000_000)
    for trigger_id in {key for key, _ in rows}.difference(alive):
        await _purge(plugin, table_of(trigger_id), "", END * 2)
        await plugin.store.write(TRIGGERS, delete=[trigger_id])


async def _purge(plugin: PluginContext, table: str, after: str, until: str) -> None:
    while await plugin.store.purge(table, until, after=after, limit=PAGE):
        pass


def table_of(trigger_id: str) -> str:
    return f"objects of {trigger_id}"
