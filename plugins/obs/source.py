"""Source of OBS: one invocation for each object that is created or removed.

If ``[plugins.obs]`` has a folder, the kernel reports changes of its files. If it has an endpoint, the bucket is listed
every ``scan`` seconds, and when the store sends a notification. If it has neither, or an endpoint and ``scan = 0``,
notifications are the only source of events.

Lists and folders show only the event types Put, CompleteMultipartUpload and Delete. Notifications report the others as
well, and the user who caused them. Several changes of an object between two comparisons are one event.
"""

from __future__ import annotations

import asyncio
from functools import partial

import anyio
from anyio.abc import TaskStatus

from engine import Event, SettingsError, TriggerContext
from plugins.obs.folder import TICK, FolderStore
from plugins.obs.options import ObsOptions, ObsSettings
from plugins.obs.records import ObjectEvent, event_json
from plugins.obs.service import ObsService
from plugins.obs.snapshot import Differences, Snapshot, open_snapshot
from plugins.obs.store import ObjectStore

LISTED_EVENTS = frozenset({"ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "ObjectRemoved:Delete"})


class ObsTrigger:
    def __init__(self, options: ObsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: ObsSettings = context.plugin.settings
        hub: ObsService = context.plugin.service
        if not settings.folder and not (settings.endpoint and settings.scan):
            with hub.listening(context, self._options.bucket, partial(_notified, self._options, context)):
                task_status.started()
                await anyio.sleep_forever()
        if self._options.wanted.isdisjoint(LISTED_EVENTS):
            raise SettingsError("only notifications report these events: set plugins.obs.scan = 0, and no folder")
        scanning = _Scanning(self._options, context)
        with hub.listening(context, self._options.bucket, scanning.notify):
            task_status.started()
            async with hub.scan_locks[context.trigger_id], hub.opener.open() as store:
                await scanning.run(store, settings.scan, hub)


def _notified(options: ObsOptions, context: TriggerContext, event: ObjectEvent) -> Event | None:
    """Return the event of a record in a notification, or None if the trigger does not want it."""
    wanted = event.key.startswith(options.prefix) and event.key.endswith(options.suffix)
    if not wanted or event.event not in options.wanted:
        return None
    payload = event_json(event, options.name or context.trigger_id, context.plugin.region)
    return Event(payload=payload, idempotency_key=f"obs:{context.trigger_id}:{event.id}")


class _Scanning:
    """Receiver of notifications for one trigger that compares its bucket with the snapshot.

    A bucket of a store is compared at an interval, and after each notification without waiting for the interval. A
    folder is compared when the kernel reports changes; notifications have no effect.
    """

    def __init__(self, options: ObsOptions, context: TriggerContext) -> None:
        self._options, self._context = options, context
        self._notified = asyncio.Event()

    def notify(self, event: ObjectEvent) -> None:
        self._notified.set()

    async def run(self, store: ObjectStore, scan: float, hub: ObsService) -> None:
        context, options = self._context, self._options
        snapshot = await open_snapshot(context, options.bucket, options.prefix)
        differences = Differences(store, options, snapshot, context)
        if isinstance(store, FolderStore):
            await self._watch(store, differences, snapshot, hub)
        while True:
            self._notified.clear()
            await differences.compare_all(context.plugin.clock.now())
            with anyio.move_on_after(scan):
                await self._notified.wait()

    async def _watch(self, store: FolderStore, differences: Differences, snapshot: Snapshot, hub: ObsService) -> None:
        clock = self._context.plugin.clock
        async with hub.watches.watched(store, self._options.bucket) as watch:
            await differences.compare_all(clock.now())
            folder = watch.identity.text
            if await snapshot.enter(folder):
                self._context.report_lost(f"{folder} has replaced another: new files of that one may be unread", 0)
            try:
                while True:
                    files, folders = await watch.changes()
                    await anyio.sleep(TICK)
                    await differences.compare_changes(files, folders, clock.now())
            except Exception:
                await snapshot.enter(watch.identity.text)
                raise
