"""The source of OBS: one call for each object that comes or goes.

Of a folder the kernel tells what changes. A bucket of a store is listed every ``scan`` seconds, and when the store
posts a notification; with ``scan = 0``, or without a store, notifications are all there is. Lists and folders tell
Put, CompleteMultipartUpload and Delete; only notifications tell the other events, and who caused them. What changes
several times between two looks is one event.
"""

from __future__ import annotations

import asyncio

import anyio
from anyio.abc import TaskStatus

from engine import Event, SettingsError, TriggerContext
from plugins.obs.differences import Differences
from plugins.obs.folder import FolderStore
from plugins.obs.options import ObsOptions
from plugins.obs.records import Happening, event_json
from plugins.obs.service import ObsHub
from plugins.obs.snapshot import open_snapshot
from plugins.obs.store import ObsService, Store
from plugins.obs.watch import watched

TOLD_BY_LISTS = frozenset({"ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "ObjectRemoved:Delete"})
UNHEARD = "neither plugins.obs.folder nor .endpoint is set: it waits for notifications that are posted to /triggers/obs"


class ObsTrigger:
    def __init__(self, options: ObsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: ObsService = context.plugin.settings
        hub: ObsHub = context.plugin.service
        if not settings.folder and not (settings.endpoint and settings.scan):
            with hub.heard(_Notified(self._options, context)):
                task_status.started()
                if not settings.endpoint:
                    context.report_problem(UNHEARD)
                await anyio.sleep_forever()
        if self._options.wanted.isdisjoint(TOLD_BY_LISTS):
            raise SettingsError("only notifications tell such events: set plugins.obs.scan = 0, and no folder")
        looking = _Looking(self._options, context)
        with hub.heard(looking):
            task_status.started()
            async with hub.turn(context.trigger_id), hub.opener.open() as store:
                await looking.run(store, settings.scan)


class _Notified:
    """What a store tells is the event."""

    def __init__(self, options: ObsOptions, context: TriggerContext) -> None:
        self._options, self._context = options, context
        self.bucket, self.project, self.trigger_id = options.bucket, context.project, context.trigger_id

    def tell(self, happening: Happening) -> tuple[TriggerContext, Event] | None:
        options, context, key = self._options, self._context, happening.key
        context.report_problem("")
        if not (key.startswith(options.prefix) and key.endswith(options.suffix) and happening.event in options.wanted):
            return None
        payload = event_json(happening, options.name or self.trigger_id, context.plugin.region)
        return context, Event(payload=payload, idempotency_key=f"obs:{self.trigger_id}:{happening.id}")


class _Looking:
    """What a store tells makes it look."""

    def __init__(self, options: ObsOptions, context: TriggerContext) -> None:
        self._options, self._context = options, context
        self.bucket, self.project, self.trigger_id = options.bucket, context.project, context.trigger_id
        self._told = asyncio.Event()

    def tell(self, happening: Happening) -> None:
        self._told.set()

    async def run(self, store: Store, scan: float) -> None:
        context, options = self._context, self._options
        snapshot = await open_snapshot(context, options.prefix)
        rule = options.name or self.trigger_id
        differences = Differences(store, options, snapshot, rule=rule, region=context.plugin.region)
        if isinstance(store, FolderStore):
            await self._watch(store, differences)
        while True:
            self._told.clear()
            await differences.whole(context.plugin.clock.now())
            with anyio.move_on_after(scan):
                await self._told.wait()

    async def _watch(self, store: FolderStore, differences: Differences) -> None:
        clock, prefix = self._context.plugin.clock, self._options.prefix
        async with watched(store.place(self._options.bucket)) as watch:
            await differences.whole(clock.now())
            while True:
                changed = await watch.changes()
                await differences.keys(sorted(key for key in changed.files if key.startswith(prefix)), clock.now())
                for folder in sorted(changed.folders):
                    if folder.startswith(prefix) or prefix.startswith(folder):
                        await differences.tree(max(folder, prefix, key=len), clock.now())
