"""Destination DIS: each outcome is sent as a record to a stream. The record's partition key is the request id.

Delivery is at least once. Records of a repeated outcome have the same ``request_context.request_id``.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import DeliveryContext, PendingDelivery, parse_urn
from plugins._shared.fields import Text
from plugins._shared.outcomes import context_of
from plugins.dis.access import Entry
from plugins.dis.problems import DisProblem


class DisParam(Struct, frozen=True, kw_only=True):
    stream_name: Annotated[Text, Meta(title="Stream", examples=["outcomes"])]


class DisDestination:
    def __init__(self, param: DisParam) -> None:
        self._stream = param.stream_name

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        outcome = context_of(record)
        project = parse_urn(outcome.function_urn, region="", project="").project
        access = await context.plugin.service.access()
        entry = Entry(data=record, partition_key=outcome.request_id)
        [put] = await access.put(project, self._stream, [entry], context.hop())
        if put.error_code:
            raise DisProblem(put.error_code, put.error_message or "")
