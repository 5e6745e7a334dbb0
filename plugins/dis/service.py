"""Service of DIS: the streams that the engine serves itself and their API, or the client of a remote endpoint."""

from __future__ import annotations

import asyncio

from anyio.abc import TaskStatus

from engine import PluginContext
from plugins._shared.http_client import HttpService
from plugins.dis.api import LIMIT, OTHERS, DisApi
from plugins.dis.apps import Apps
from plugins.dis.options import DisSettings
from plugins.dis.remote import RemoteStreams
from plugins.dis.streams import Streams

StreamAccess = Streams | RemoteStreams  #: by which sources and destinations use streams


class DisService:
    """Part of DIS that runs once for all its triggers and destinations."""

    def __init__(self, settings: DisSettings) -> None:
        self._settings = settings
        self._ready = asyncio.Event()
        self._access: StreamAccess | None = None

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        try:
            if self._settings.endpoint:
                http = HttpService(self._settings.timeout)
                self._set_ready(RemoteStreams(self._settings, http, context.clock))
                await http.run(context, task_status=task_status)
            else:
                await self._run_streams(context, task_status)
        finally:
            self._ready.clear()

    async def access(self) -> StreamAccess:
        """Return the access to the streams, after waiting until the service has started."""
        await self._ready.wait()
        assert self._access is not None
        return self._access

    def has(self, project: str, name: str) -> bool:
        """Return whether the project has a stream, or whether streams are elsewhere."""
        return not isinstance(self._access, Streams) or name in self._access.names(project)

    async def _run_streams(self, context: PluginContext, task_status: TaskStatus[None]) -> None:
        streams = self._access
        if not isinstance(streams, Streams):  # after a failure, running triggers keep using the loaded streams
            streams = Streams(context)
            await streams.load()
        api = DisApi(streams, Apps(context.store, context.clock.now))
        with api.table.served(context, LIMIT, *OTHERS):
            self._set_ready(streams)
            task_status.started()
            await streams.run()

    def _set_ready(self, access: StreamAccess) -> None:
        self._access = access
        self._ready.set()
