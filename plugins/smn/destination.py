"""Destination SMN: each outcome is a message of a topic, here or at the endpoint.

At least once: one that comes twice has the same ``request_context.request_id``, and here also the same message id, so
that it calls no function twice.
"""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct

from engine import DeliveryContext, PendingDelivery, parse_urn
from plugins._shared.endpoint import Endpoint
from plugins._shared.fields import Text
from plugins._shared.outcomes import context_of
from plugins.smn.service import SmnService


class SmnParam(Struct, frozen=True, kw_only=True):
    topic_urn: Text


class SmnDestination:
    def __init__(self, param: SmnParam) -> None:
        self._topic = param.topic_urn

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        service: SmnService = context.plugin.service
        said = context_of(record)
        project = parse_urn(said.function_urn, region="", project="").project
        subject, key = f"{pending.condition} of {said.function_urn}", f"{said.request_id}-{pending.delivery_id}"
        publisher = await service.publisher()
        if not isinstance(publisher, Endpoint):
            await publisher.publish(project, self._topic, record.decode(), subject=subject, key=key, hops=context.hop())
            return
        path = f"notifications/topics/{quote(self._topic, safe=':')}/publish"
        body = {"subject": subject, "message": record.decode()}
        reply = await publisher.request("POST", project, path, body=body, headers={"Idempotency-Key": key})
        if not reply.is_success:
            raise ConnectionError(f"{self._topic} answered {reply.status_code}: {reply.text[:200]}")
