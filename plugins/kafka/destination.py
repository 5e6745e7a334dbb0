"""Destination KAFKA, an addition to the vendor's kinds: outcomes are sent as records to a topic.

A repeated delivery has the same header ``functiond-id``, so that readers can recognise it. The record's key is the
request id.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Meta, Struct

from engine import DeliveryContext, PendingDelivery, PluginContext, Undeliverable
from plugins._shared.fields import Text
from plugins._shared.outcomes import context_of
from plugins.kafka.causes import named_causes
from plugins.kafka.settings import KafkaSettings, connection, library

ID = "functiond-id"
#: Bytes of one record: an outcome holds the payload, the result and some text. The broker's limit may be lower.
RECORD_LIMIT = 16 << 20


class KafkaParam(Struct, frozen=True, kw_only=True):
    instance_id: Annotated[
        Text, Meta(examples=["main"], extra={"help": "Id of the cluster, or its name in the engine's settings."})
    ]
    topic: Annotated[Text, Meta(examples=["outcomes"])]


class Producers:
    """Clients that send records, one per cluster. Each is opened at its first use and closed with the engine."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._open: dict[str, Any] = {}
        self._opening: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(2, shield=True):
                for producer in self._open.values():
                    await producer.stop()
            self._open.clear()

    async def producer(self, name: str) -> Any:
        """Return the client that sends records to a cluster, after opening it if necessary.

        Raises SettingsError if the cluster has no address or the library is not installed, and the client's errors
        while the cluster cannot be reached.
        """
        async with self._opening[name]:
            if name not in self._open:
                arguments = connection(self._settings.instance(name))
                producer = library().AIOKafkaProducer(acks="all", max_request_size=RECORD_LIMIT, **arguments)
                try:
                    with named_causes():
                        await producer.start()
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await producer.stop()
                    raise
                self._open[name] = producer
            return self._open[name]


class KafkaDestination:
    def __init__(self, param: KafkaParam) -> None:
        self._param = param

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        producer = await context.plugin.service.producer(self._param.instance_id)
        request_id = context_of(record).request_id
        headers = [(ID, f"{request_id}-{pending.delivery_id}".encode())]
        if context.traceparent:
            headers.append(("traceparent", context.traceparent.encode()))
        try:
            await producer.send_and_wait(self._param.topic, record, key=request_id.encode(), headers=headers)
        except library().errors.MessageSizeTooLargeError as error:
            raise Undeliverable(f"topic {self._param.topic} accepts no record of this size: {error}") from None
