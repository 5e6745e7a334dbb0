"""Destination SMN: each outcome is published as a message of a topic, on the engine itself or at the remote endpoint.

Delivery is at least once. Messages of a repeated outcome have the same ``request_context.request_id``. In topics that
the engine serves itself they also have the same message id, so they call each function once.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from msgspec import Meta, Struct

from engine import DeliveryContext, PendingDelivery, Undeliverable, parse_urn
from plugins._shared.fields import Text
from plugins._shared.http_client import Endpoint
from plugins._shared.outcomes import context_of
from plugins.smn.service import SmnService
from plugins.smn.topics import key_of


class SmnParam(Struct, frozen=True, kw_only=True):
    topic_urn: Annotated[Text, Meta(examples=["urn:smn:local-1:default:outcomes"])]


class SmnDestination:
    def __init__(self, param: SmnParam) -> None:
        self._topic = param.topic_urn

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        service: SmnService = context.plugin.service
        outcome = context_of(record)
        project = parse_urn(outcome.function_urn, region="", project="").project
        subject, key = f"{pending.condition} of {outcome.function_urn}", f"{outcome.request_id}-{pending.delivery_id}"
        publisher = await service.publisher()
        if not isinstance(publisher, Endpoint):
            await publisher.publish(project, self._topic, record.decode(), subject=subject, key=key, hops=context.hop())
            return
        own = publisher.project_id or key_of(self._topic)[:1] == (project,)
        if not own and not context.plugin.may_use(project, ()):
            raise Undeliverable(f"{self._topic} belongs to another project than {project}")
        path = f"notifications/topics/{quote(self._topic, safe=':')}/publish"
        body = {"subject": subject, "message": record.decode()}
        headers = {"Idempotency-Key": key, **({"traceparent": context.traceparent} if context.traceparent else {})}
        reply = await publisher.request("POST", project, path, body=body, headers=headers)
        if not reply.is_success:
            raise ConnectionError(f"{self._topic} answered {reply.status_code}: {reply.text[:200]}")
