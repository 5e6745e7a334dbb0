"""What all of OBS in one engine shares: the way to the store, the endpoint for notifications, and who listens.

``POST /triggers/obs`` takes notifications for all buckets. Where a bucket is listed or watched, they only say that it
is time to look; else they are the events. Those of a bucket without a trigger are answered 404, so that a store that
keeps its notifications comes again while the engine starts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from engine import Callers, Event, NotFound, PluginContext, PushReply, PushRequest, TriggerContext, Unauthorized
from plugins._shared.fetch import MAX_WAIT, Fetcher, confirm
from plugins._shared.http_client import HttpService
from plugins._shared.push import accept_each, accepted_reply, push_operation
from plugins.obs.expiry import Expiry
from plugins.obs.notifications import Confirmation, read_notification
from plugins.obs.opening import StoreOpener
from plugins.obs.records import Happening
from plugins.obs.snapshot import forget_others
from plugins.obs.store import ObsService

#: Seconds after which all triggers that there are have begun to listen.
SETTLED = 60.0
PUSH = push_operation("ObsPushNotification", "/triggers/obs", status=200)


class Listener(Protocol):
    """One trigger."""

    @property
    def bucket(self) -> str: ...

    @property
    def project(self) -> str: ...

    @property
    def trigger_id(self) -> str: ...

    def tell(self, happening: Happening) -> tuple[TriggerContext, Event] | None:
        """What its function is to be called with; None if that is not for a notification to say."""
        ...


class ObsHub:
    """The ``PluginService``."""

    def __init__(self, settings: ObsService) -> None:
        """Raises SettingsError if the store's client is not installed."""
        self.opener = StoreOpener(settings)
        self.expiry = Expiry(self.opener)
        self._settings = settings
        self._http = HttpService(MAX_WAIT)
        self._fetcher = Fetcher(self._http, (), settings.confirm_hosts)
        self._listeners: dict[str, Listener] = {}
        self._turns: dict[str, anyio.Lock] = {}

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        answer = partial(self._answer, context.callers)
        with context.routes.mount("", answer, signed=not self._settings.token, operations=[PUSH]):
            async with self.opener.kept(), anyio.create_task_group() as tasks:
                await tasks.start(lambda *, task_status: self._http.run(context, task_status=task_status))
                tasks.start_soon(self.expiry.run, context)
                task_status.started()
                await anyio.sleep(SETTLED)
                await forget_others(context, self._turns)

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Notifications reach a trigger; where it runs twice while it changes, its newer self."""
        self._listeners[listener.trigger_id] = listener
        try:
            yield
        finally:
            if self._listeners[listener.trigger_id] is listener:
                del self._listeners[listener.trigger_id]

    def turn(self, trigger_id: str) -> anyio.Lock:
        """Held by the one life of a trigger that looks for changes."""
        return self._turns.setdefault(trigger_id, anyio.Lock())

    # --- notifications --------------------------------------------------------------------------------------

    async def _answer(self, callers: Callers, request: PushRequest) -> PushReply:
        if self._settings.token:
            self._check(callers, request)
        if request.method != "POST":
            return PushReply(status=405, headers=((b"allow", b"POST"),))
        told = read_notification(request.body)
        if isinstance(told, Confirmation):
            await confirm(self._fetcher, told.url, "plugins.obs.confirm_hosts")
            return accepted_reply(0, status=200)
        wanted = [(happening, self._listening(happening.bucket, request.project)) for happening in told]
        told_on = (one.tell(happening) for happening, listeners in wanted for one in listeners)
        accepted = await accept_each(pair for pair in told_on if pair is not None)
        return accepted_reply(accepted, status=200)

    def _check(self, callers: Callers, request: PushRequest) -> None:
        """Raises Unauthorized, and Overloaded for who tries one token after another."""
        shown = request.headers.get(b"authorization", b"")
        with callers.attempt({"client": (request.client, 0)}) if shown else nullcontext():
            if not shows(shown, self._settings.token):
                raise Unauthorized("show plugins.obs.token, as Authorization: Bearer or as password of Basic")

    def _listening(self, bucket: str, project: str) -> list[Listener]:
        of_bucket = [one for one in self._listeners.values() if one.bucket == bucket]
        found = [one for one in of_bucket if project in ("", one.project)]
        if not found:
            raise NotFound(f"no trigger listens to the bucket {bucket[:100]!r}")
        return found


def shows(authorization: bytes, token: str) -> bool:
    """Stores can send one of two: MinIO a bearer token, Ceph and SNS the user and password of a URL."""
    kind, _, value = authorization.strip().partition(b" ")
    value = value.strip()
    if kind.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    return kind.lower() in (b"basic", b"bearer") and hmac.compare_digest(value, token.encode())
