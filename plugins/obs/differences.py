"""Changes of a bucket, found by comparing its objects with the snapshot, which has their last states.

Memory is bounded, since both are read in pages. The comparison is also correct for stores that return short pages (only
a page without ``more`` is the last), and for stores that do not sort by the keys' bytes. Each row of the snapshot is
read once. An object that is missing from a page is requested by its key before it counts as removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from engine import StoreUnavailable
from plugins.obs.options import ObsOptions
from plugins.obs.records import ObjectEvent, created_event, event_json, removed_event
from plugins.obs.snapshot import END, Change, Snapshot
from plugins.obs.store import ObjectStore, StoredObject


class Differences:
    """Comparison of a bucket with a snapshot.

    ``rule`` is the trigger's name, or its id if it has no name. ``region`` is the engine's region. Both are copied into
    events.
    """

    def __init__(self, store: ObjectStore, options: ObsOptions, snapshot: Snapshot, *, rule: str, region: str) -> None:
        self._store, self._options, self._snapshot = store, options, snapshot
        self._rule, self._region = rule, region

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
            present = {one.key: one for one in page.objects}
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
        new = self._created(states, [one for one in present.values() if one is not None], reported=True)
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
        for one in present:
            content = f"{one.etag} {one.modified_at!r}"
            state, before = f"{content} {one.changed_at}".strip(), states.get(one.key)
            if state != before:
                # Another mode or link changes a file's time of change, too, but is not reported.
                same = not reported and f"{before} ".startswith(f"{content} ")
                is_new = not same if before is not None else self._is_new(one)
                payload = self._payload(created_event(self._options.bucket, one)) if is_new else None
                changes.append(Change(key=one.key, state=state, payload=payload))
        return changes

    def _is_new(self, one: StoredObject) -> bool:
        """Return whether an object that is not in the snapshot was created later than the trigger.

        Stores report whole seconds. An object from the same second as the trigger counts as new.
        """
        progress = self._snapshot.progress
        return progress.whole or one.modified_at >= math.floor(progress.since)

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
