"""Destination WEBHOOK: the outcome is sent to a URL by POST, with headers of the Standard Webhooks specification 1.0.

The request is signed if the destination names a secret.
``webhook-id`` is the same in repeated deliveries of an outcome. Delivery is repeated after a reply other than 2xx,
except 410.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from engine import DeliveryContext, InvalidField, PendingDelivery, SettingsError, Undeliverable
from plugins._shared.outcomes import HOPS, context_of
from plugins.webhook.options import WebhookSettings
from plugins.webhook.signatures import key_of, sign

GONE = 410


class WebhookParam(Struct, frozen=True, kw_only=True):
    url: Annotated[str, Meta(title="URL", examples=["https://example.com/outcomes"])]
    #: name of a secret, never the secret itself
    secret: Annotated[
        str,
        Meta(title="Name of the secret", extra={"help": "A name in plugins.webhook.secrets. Empty: no signature."}),
    ] = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidField("url", self.url, "must be a complete one that begins with http:// or https://")


def used_secret(settings: WebhookSettings, given: object) -> Mapping[str, Collection[str]]:
    """Return the projects of the secret with which a destination signs. A trigger has a secret of its own."""
    if not isinstance(given, WebhookParam) or (secret := settings.secret(given.secret)) is None:
        return {}
    return {f"secrets.{given.secret}": secret.projects}


class WebhookDestination:
    def __init__(self, param: WebhookParam) -> None:
        self._param = param

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        client = context.plugin.service.client()
        url, headers = self._param.url, self._headers(pending, record, context)
        with context.plugin.limited_egress():
            async with client.stream(
                "POST", url, content=record, headers=headers
            ) as reply:  # streamed, since its body may be endless
                if reply.status_code == GONE:
                    raise Undeliverable(f"{url} answered 410: it accepts no more deliveries")
                if not reply.is_success:
                    raise ConnectionError(f"{url} answered {reply.status_code}")

    def _headers(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> dict[str, str]:
        request_id = context_of(record).request_id
        message_id, now = f"{request_id}-{pending.delivery_id}", int(context.plugin.clock.now())
        headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(now)}
        headers[HOPS] = str(context.hop())
        if context.traceparent:
            headers["traceparent"] = context.traceparent
        if self._param.secret:
            secret = context.plugin.settings.secret(self._param.secret)
            if secret is None:
                raise SettingsError(f"set plugins.webhook.secrets.{self._param.secret}: a destination signs with it")
            headers["webhook-signature"] = sign(key_of(secret.secret), message_id, now, record)
        return headers
