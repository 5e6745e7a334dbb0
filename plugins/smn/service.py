"""Service of SMN: topics that the engine serves itself or a remote endpoint, and checks of remote topics' messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import anyio
from anyio.abc import TaskStatus

from engine import EventSink, Forbidden, PluginContext, parse_urn
from plugins._shared.connections import load_library
from plugins._shared.http_client import Endpoint, Fetcher, HttpService
from plugins.smn.api import LIMIT, TAGS_LIMIT, SmnApi
from plugins.smn.options import SmnOptions, SmnSettings
from plugins.smn.pushed import Pushed, Verifier
from plugins.smn.topics import CONFIRMED, UNCONFIRMED, Listener, Listeners, Topics

#: Seconds after the start by which all existing triggers are registered.
SETTLED = 60.0


class SmnService:
    """Part of SMN that runs once for all its triggers and destinations."""

    def __init__(self, settings: SmnSettings, fetch: Callable[[str], Awaitable[bytes]] | None = None) -> None:
        """Raise SettingsError if remote topics may send messages, but the library to verify them is not installed.

        ``fetch`` replaces the download of certificates from their URLs.
        """
        self.listeners = Listeners()
        self._settings, self._http = settings, HttpService(settings.timeout, settings.ca_file)
        self.accepts_pushes = bool(settings.hosts or settings.private_hosts or fetch)
        if self.accepts_pushes:
            load_library("httpx", "plugins.smn.hosts: verification of pushed messages", "smn")
        self.fetcher = Fetcher(self._http, settings.hosts, settings.private_hosts)
        self._verifier = Verifier(fetch or self.fetcher.get)
        self._ready = asyncio.Event()
        self._publisher: Topics | Endpoint | None = None

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        await self.listeners.load(context.store)
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda *, task_status: self._http.run(context, task_status=task_status))
            try:
                await self._serve(context, task_status)
            finally:
                self._ready.clear()

    async def publisher(self) -> Topics | Endpoint:
        """Return the topics that the engine serves itself, or the client of the remote endpoint.

        Waits until the service has started.
        """
        await self._ready.wait()
        assert self._publisher is not None
        return self._publisher

    async def verify(self, pushed: Pushed, now: float) -> None:
        """Verify the signature of a message from a remote topic.

        Raises Forbidden if no hosts of certificates are set, if the certificate's URL is not allowed, or if its host
        refuses; Unauthorized if the certificate is invalid or the signature does not match; Unavailable if the
        certificate cannot be downloaded now.
        """
        if not self.accepts_pushes:
            raise Forbidden("pushed messages are not accepted: set plugins.smn.hosts to the hosts of certificates")
        await self._verifier.check(pushed, now)

    def has(self, project: str, topic_urn: str) -> bool:
        """Return whether the project has a topic, or whether topics are elsewhere."""
        return not isinstance(self._publisher, Topics) or self._publisher.has(project, topic_urn)

    def subscribed(self, options: SmnOptions, sink: EventSink) -> AbstractContextManager[None]:
        return self.listeners.listening(Listener(topic_urn=options.topic_urn, sink=sink))

    def status(self, options: SmnOptions, trigger_id: str, urn: str) -> str:
        """Return the status of a trigger's subscription. Topics that the engine serves itself need no confirmation."""
        project = parse_urn(urn, region="", project="").project
        own = isinstance(self._publisher, Topics) and self._publisher.has(project, options.topic_urn)
        return CONFIRMED if own or self.listeners.is_confirmed(trigger_id) else UNCONFIRMED

    async def _serve(self, context: PluginContext, task_status: TaskStatus[None]) -> None:
        if self._settings.endpoint:
            self._publisher = Endpoint(self._settings, self._http, context.clock)
            await self._settle(context, task_status)
        else:
            topics = Topics(context, self.listeners)
            await topics.load()
            self._publisher = topics
            api = SmnApi(topics)
            with api.table.served(context, LIMIT), api.tags.served(context, TAGS_LIMIT):
                await self._settle(context, task_status)

    async def _settle(self, context: PluginContext, task_status: TaskStatus[None]) -> None:
        self._ready.set()
        self.listeners.announce_topics()
        task_status.started()
        await anyio.sleep(SETTLED)
        await self.listeners.forget_others(context.store)
        await anyio.sleep_forever()
