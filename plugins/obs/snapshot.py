"""Snapshot of a trigger's bucket, the last state of each object, and changes, which are differences from it.

A list of a bucket is sorted by key, not by time, so no position in it separates new objects from old ones. The
snapshot's rows, in the plugin's own durable table, cannot be written in the transaction that accepts events, but the
trigger's cursor can. The cursor therefore contains the rows of the last accepted events, and the next run of the
source writes them to the table first. No event is lost or repeated, wherever the engine is killed.

Memory is bounded, since objects and rows are read in pages. The comparison is also correct for stores that return short
pages (only a page without ``more`` is the last), and for stores that do not sort by the keys' bytes. Each row of the
snapshot is read once. An object that is missing from a page is requested by its key before it counts as removed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from engine import Event, PluginContext, StoreUnavailable, TriggerContext
from plugins._shared.rows import purge_rows
from plugins.obs.options import ObsOptions
from plugins.obs.records import ObjectEvent, created_event, event_json, removed_event
from plugins.obs.store import ObjectStore, StoredObject

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

    def __init__(self, context: TriggerContext, progress: Progress, bucket: str) -> None:
        self._context, self.progress, self._bucket = context, progress, bucket
        self._hops = context.plugin.service.hops
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
            found = [await self._hops(self._bucket, change.key) if change.state else 0 for change in part]
            made = [Event(payload=change.payload or b"", hops=hops) for change, hops in zip(part, found, strict=True)]
            await self._accept(made, rows=rows)
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


async def open_snapshot(context: TriggerContext, bucket: str, prefix: str) -> Snapshot:
    """Return the stored snapshot of a trigger, or a new one. ``prefix`` is the trigger's present prefix of keys.

    After a change of the prefix, rows of objects outside the new prefix are deleted. In the next comparison, objects
    without a row count as new only if they were created after the change.
    """
    store, cursor = context.plugin.store, context.cursors.get(CURSOR)
    fresh = Progress(prefix=prefix, since=context.since)
    if cursor is None or await store.get(TRIGGERS, context.trigger_id) is None:
        await store.write(TRIGGERS, {context.trigger_id: context.function.encode()})
        return Snapshot(context, fresh, bucket)
    stored = msgspec.json.decode(cursor, type=Progress)
    snapshot = Snapshot(context, stored, bucket)
    await snapshot._write(stored.rows)
    if stored.prefix != prefix:
        if prefix:  # no comparison updates the rows of objects outside it any more
            await purge_rows(store, table_of(context.trigger_id), "", prefix)
            await purge_rows(store, table_of(context.trigger_id), prefix + END, END * 2)
        snapshot.progress = fresh
    return snapshot


async def forget_others(plugin: PluginContext, alive: Iterable[str]) -> None:
    """Delete the snapshots of all triggers except those whose ids are in ``alive``."""
    rows = await plugin.store.scan(TRIGGERS, limit=1_000_000)
    for trigger_id in {key for key, _ in rows}.difference(alive):
        await purge_rows(plugin.store, table_of(trigger_id), "", END * 2)
        await plugin.store.write(TRIGGERS, delete=[trigger_id])


def table_of(trigger_id: str) -> str:
    return f"objects of {trigger_id}"


class Differences:
    """Comparison of a bucket with a snapshot."""

    def __init__(self, store: ObjectStore, options: ObsOptions, snapshot: Snapshot, context: TriggerContext) -> None:
        self._store, self._options, self._snapshot = store, options, snapshot
        self._rule, self._region = options.name or context.trigger_id, context.plugin.region

    async def compare_all(self, now: float) -> None:
        """Compare all objects whose keys begin with the trigger's prefix, and accept the events of their changes.

        Raises the store's errors. Changes that were found before an error are accepted nevertheless.
        """
        await self._compare_prefix(self._options.prefix, now)
        await self._snapshot.finish()

    async def _compare_prefix(self, prefix: str, now: float) -> None:
        """Compare all objects whose keys begin with ``prefix``, and accept the events of their changes."""
        after, high = "", _below(prefix)
        while True:
            page = await self._store.list(self._options.bucket, prefix=prefix, after=after)
            present = {stored.key: stored for stored in page.objects}
            top = max(high, *present) if present else high
            await self._compare(present, high, f"{top}\x01" if page.more else prefix + END, now)
            if not page.more:
                return
            if not page.objects or page.objects[-1].key == after:
                raise StoreUnavailable("the list of its objects does not end: a page repeats")
            after, high = page.objects[-1].key, top

    async def compare_changes(self, files: Iterable[str], folders: Iterable[str], now: float) -> None:
        """Compare the objects with these keys, and those in these folders, and accept the events of their changes."""
        prefix = self._options.prefix
        keys = sorted(key for key in files if key.startswith(prefix))
        states = await self._snapshot.states(keys)
        present = {key: await self._store.find(self._options.bucket, key) for key in keys}
        new = self._created(states, [stored for stored in present.values() if stored is not None], reported=True)
        await self._snapshot.apply([*new, *self._removed([key for key in states if present[key] is None], now)])
        for folder in sorted(folders):
            if folder.startswith(prefix) or prefix.startswith(folder):
                await self._compare_prefix(max(folder, prefix, key=len), now)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _compare(self, present: Mapping[str, StoredObject], after: str, until: str, now: float) -> None:
        """Compare a page of objects with the snapshot's rows between the keys ``after`` and ``until``.

        If the store sorts by key, these rows are those of the page. States of other objects in the page are read by
        their keys.
        """
        states = dict(await self._snapshot.states(key for key in present if not after < key < until))
        async for rows in self._snapshot.between(after, until):
            states.update((key, state) for key, state in rows.items() if key in present)
            absent = [key for key in rows if key not in present]
            missing = [key for key in absent if await self._store.find(self._options.bucket, key) is None]
            await self._snapshot.apply(self._removed(missing, now))
        await self._snapshot.apply(self._created(states, present.values()))

    def _created(
        self, states: Mapping[str, str], present: Iterable[StoredObject], *, reported: bool = False
    ) -> list[Change]:
        """Return the changes of objects that exist. ``reported``: the kernel has reported changes of the files."""
        changes = []
        for stored in present:
            content = f"{stored.etag} {stored.modified_at!r}"
            state, before = f"{content} {stored.changed_at}".strip(), states.get(stored.key)
            if state != before:
                # Another mode or link changes a file's time of change, too, but is not reported.
                same = not reported and f"{before} ".startswith(f"{content} ")
                is_new = not same if before is not None else self._is_new(stored)
                payload = self._payload(created_event(self._options.bucket, stored)) if is_new else None
                changes.append(Change(key=stored.key, state=state, payload=payload))
        return changes

    def _is_new(self, stored: StoredObject) -> bool:
        """Return whether an object that is not in the snapshot was created later than the trigger.

        Stores report whole seconds. An object from the same second as the trigger counts as new.
        """
        progress = self._snapshot.progress
        return progress.whole or stored.modified_at >= math.floor(progress.since)

    def _removed(self, keys: Iterable[str], now: float) -> list[Change]:
        bucket = self._options.bucket
        return [Change(key=key, state="", payload=self._payload(removed_event(bucket, key, now))) for key in keys]

    def _payload(self, event: ObjectEvent) -> bytes | None:
        """Return the event's JSON, or None if the trigger's event types or suffix exclude it."""
        options = self._options
        if event.event not in options.wanted or not event.key.endswith(options.suffix):
            return None
        return event_json(event, self._rule, self._region)


def _below(prefix: str) -> str:
    """Return a text that sorts before all keys with the prefix, and after all other keys that sort before them."""
    if not prefix:
        return ""
    before = ord(prefix[-1]) - 1
    return prefix[:-1] + chr(0xD7FF if before == 0xDFFF else before) + END  # no lone surrogates
