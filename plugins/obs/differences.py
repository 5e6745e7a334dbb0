"""Finds what has changed in a bucket: compares what is there with the snapshot, in bounded memory.

It holds for stores that end pages early (only ``more`` says whether others come) and whose order is not that of the
keys' bytes: each row of the snapshot is looked at once, and an object that seems to be gone is asked for by its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from engine import StoreUnavailable
from plugins.obs.options import ObsOptions
from plugins.obs.records import Happening, event_json, found, gone
from plugins.obs.snapshot import END, Change, Snapshot
from plugins.obs.store import Store, StoredObject


class Differences:
    """``rule`` and ``region`` are for the events."""

    def __init__(self, store: Store, options: ObsOptions, snapshot: Snapshot, *, rule: str, region: str) -> None:
        self._store, self._options, self._snapshot = store, options, snapshot
        self._rule, self._region = rule, region

    async def whole(self, now: float) -> None:
        """Raises what the store raises; what was found until then is accepted."""
        await self.tree(self._options.prefix, now)
        await self._snapshot.finish()

    async def tree(self, prefix: str, now: float) -> None:
        """All objects whose keys begin so."""
        after, high = "", _below(prefix)
        while True:
            page = await self._store.list(self._options.bucket, prefix=prefix, after=after)
            there = {one.key: one for one in page.objects}
            top = max(high, *there) if there else high
            await self._compare(there, high, f"{top}\x01" if page.more else prefix + END, now)
            if not page.more:
                return
            if not page.objects or page.objects[-1].key == after:
                raise StoreUnavailable("its list does not come to an end")
            after, high = page.objects[-1].key, top

    async def keys(self, keys: Sequence[str], now: float) -> None:
        """Single objects."""
        known = await self._snapshot.known(keys)
        there = {key: await self._store.find(self._options.bucket, key) for key in keys}
        new = self._created(known, [one for one in there.values() if one is not None])
        await self._snapshot.apply([*new, *self._removed([key for key in known if there[key] is None], now)])

    # --- inside ---------------------------------------------------------------------------------------------

    async def _compare(self, there: Mapping[str, StoredObject], after: str, until: str, now: float) -> None:
        """A page with the rows between two keys, which are its own if the list is in order."""
        known = dict(await self._snapshot.known(key for key in there if not after < key < until))
        async for rows in self._snapshot.between(after, until):
            known.update((key, state) for key, state in rows.items() if key in there)
            absent = [key for key in rows if key not in there]
            missing = [key for key in absent if await self._store.find(self._options.bucket, key) is None]
            await self._snapshot.apply(self._removed(missing, now))
        await self._snapshot.apply(self._created(known, there.values()))

    def _created(self, known: Mapping[str, str], there: Iterable[StoredObject]) -> list[Change]:
        changes = []
        for one in there:
            state, before = f"{one.etag} {one.modified_at!r}", known.get(one.key)
            if state != before:
                news = before is not None or self._is_news(one)
                payload = self._payload(found(self._options.bucket, one)) if news else None
                changes.append(Change(key=one.key, state=state, payload=payload))
        return changes

    def _is_news(self, one: StoredObject) -> bool:
        """Whether an unknown object came after the trigger. In doubt it did: stores tell whole seconds."""
        progress = self._snapshot.progress
        return progress.whole or one.modified_at >= math.floor(progress.since)

    def _removed(self, keys: Iterable[str], now: float) -> list[Change]:
        bucket = self._options.bucket
        return [Change(key=key, state="", payload=self._payload(gone(bucket, key, now))) for key in keys]

    def _payload(self, happening: Happening) -> bytes | None:
        options = self._options
        if happening.event not in options.wanted or not happening.key.endswith(options.suffix):
            return None
        return event_json(happening, self._rule, self._region)


def _below(prefix: str) -> str:
    """Above all keys that come before those with the prefix."""
    if not prefix:
        return ""
    before = ord(prefix[-1]) - 1
    return prefix[:-1] + chr(0xD7FF if before == 0xDFFF else before) + END  # no lone surrogates
