"""Service of OBS: access to the store, the HTTP endpoint for its notifications, and the triggers that receive them.

``POST /triggers/obs`` accepts notifications for all buckets. If the engine lists the bucket, a notification only
starts a comparison of the bucket with its snapshot. If it watches a folder, a notification has no effect. Otherwise its
records are the events. Notifications for a bucket without a trigger are answered with 404. A store that repeats refused
notifications then sends them again, and loses none while the engine starts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import anyio
from anyio.abc import TaskStatus
from msgspec.structs import replace

from engine import Callers, Event, NotFound, PluginContext, PushRequest, Reply, TriggerContext, Unauthorized
from plugins._shared.http_client import MAX_WAIT, Fetcher, HttpService
from plugins._shared.push import ONLY_POST, accept_each, accepted_reply, push_operation
from plugins.obs.destination import Expiry
from plugins.obs.notifications import Confirmation, read_notification
from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings
from plugins.obs.records import ObjectEvent
from plugins.obs.snapshot import forget_others
from plugins.obs.watch import FolderWatches

#: Seconds after the start by which all existing triggers listen.
SETTLED = 60.0
PUSH = push_operation("ObsPushNotification", "/triggers/obs", status=200)


class _Listener(NamedTuple):
    """Trigger that receives the notifications for its bucket."""

    bucket: str
    context: TriggerContext
    #: returns the event for the function; None if the trigger does not want it, or if a comparison will find it
    notify: Callable[[ObjectEvent], Event | None]


class ObsService:
    """Part of OBS that runs once for all its triggers and destinations."""

    def __init__(self, settings: ObsSettings) -> None:
        """Raise SettingsError if an endpoint is set, but the S3 client library is not installed."""
        self.opener = StoreOpener(settings)
        self.expiry = Expiry(self.opener)
        self.outcomes = set[str]()  #: buckets to which outcomes were written since the start
        self._settings = settings
        self._http = HttpService(MAX_WAIT)
        self._fetcher = Fetcher(self._http, (), settings.confirm_hosts)
        self.watches = FolderWatches()
        self._listeners: dict[str, _Listener] = {}
        #: keyed by trigger; a run of its source holds the lock while it compares the bucket, so that no two runs do
        self.scan_locks = defaultdict[str, anyio.Lock](anyio.Lock)

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        answer = partial(self._answer, context.callers)
        with context.routes.mount("", answer, signed=not self._settings.token, operations=[PUSH]):
            async with self.opener.client.held(), anyio.create_task_group() as tasks:
                await tasks.start(lambda *, task_status: self._http.run(context, task_status=task_status))
                tasks.start_soon(self.expiry.run, context)
                if self._settings.folder and find_spec("asyncinotify"):
                    tasks.start_soon(self.watches.run)
                task_status.started()
                await anyio.sleep(SETTLED)
                await forget_others(context, self.scan_locks)

    @contextmanager
    def listening(
        self, context: TriggerContext, bucket: str, notify: Callable[[ObjectEvent], Event | None]
    ) -> Iterator[None]:
        """Pass notifications for a trigger's bucket to ``notify`` until the block ends.

        ``notify`` returns the event for the function, or None. If two runs of the trigger's source overlap, only the
        newer one gets notifications.
        """
        listener = self._listeners[context.trigger_id] = _Listener(bucket, context, notify)
        try:
            yield
        finally:
            if self._listeners[context.trigger_id] is listener:
                del self._listeners[context.trigger_id]

    async def hops(self, bucket: str, key: str) -> int:
        """Return the number of functions that led to an object; 0 in a bucket that is no destination here."""
        if bucket not in self.outcomes:
            return 0
        async with self.opener.open() as store:
            found = await store.find(bucket, key)
        return found.hops if found else 0

    # --- notifications --------------------------------------------------------------------------------------

    async def _answer(self, callers: Callers, request: PushRequest) -> Reply:
        if self._settings.token:
            self._check(callers, request)
        if request.method != "POST":
            return ONLY_POST
        notification = read_notification(request.body)
        if isinstance(notification, Confirmation):
            await self._fetcher.confirm(notification.url, "plugins.obs.confirm_hosts")
            return accepted_reply(0, status=200)
        received = [(event, self._listeners_of(event.bucket, request.project)) for event in notification]
        accepted = await accept_each(
            [
                (listener.context, replace(made, hops=await self.hops(event.bucket, event.key)))
                if (made := listener.notify(event)) is not None
                else None
                for event, listeners in received
                for listener in listeners
            ]
        )
        return accepted_reply(accepted, status=200)

    def _check(self, callers: Callers, request: PushRequest) -> None:
        """Check the configured token in a notification's request.

        Raises Unauthorized if the token is missing or wrong; Overloaded if too many refusals are delayed already.
        """
        authorization = request.headers.get(b"authorization", b"")
        with callers.attempt({"client": (request.client, 0)}) if authorization else nullcontext():
            if not has_token(authorization, self._settings.token):
                raise Unauthorized("send plugins.obs.token as Authorization: Bearer, or as password of Basic")

    def _listeners_of(self, bucket: str, project: str) -> list[_Listener]:
        of_bucket = [listener for listener in self._listeners.values() if listener.bucket == bucket]
        matching = [listener for listener in of_bucket if project in ("", listener.context.project)]
        if not matching:
            raise NotFound(f"no OBS trigger exists for the bucket {bucket[:100]!r}")
        return matching


def has_token(authorization: bytes, token: str) -> bool:
    """Return whether an Authorization header has the token, as Bearer (MinIO) or as password of Basic (Ceph, SNS)."""
    kind, _, value = authorization.strip().partition(b" ")
    value = value.strip()
    if kind.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    return kind.lower() in (b"basic", b"bearer") and hmac.compare_digest(value, token.encode())
