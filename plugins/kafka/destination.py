"""Destination KAFKA, an addition to the vendor's kinds: outcomes are sent as records to a topic.

A repeated delivery has the same header ``functiond-id``, so that readers can recognise it. The record's key is the
request id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

import anyio
import structlog
from anyio.abc import TaskStatus
from msgspec import Meta, Struct

from engine import DeliveryContext, PendingDelivery, PluginContext, Undeliverable
from plugins._shared.connections import SharedClient, deadline
from plugins._shared.fields import Text
from plugins._shared.outcomes import HOPS, context_of
from plugins.kafka.client import Causes, connection, library, named_causes, pace
from plugins.kafka.options import InstanceId, KafkaSettings
from plugins.kafka.topics import Topics

log = structlog.get_logger("functiond.plugins.kafka")

ID = "functiond-id"
#: Bytes of one record: an outcome holds the payload, the result and some text. The broker's limit may be lower.
RECORD_LIMIT = 16 << 20
CONFIRMED = 20.0  #: seconds in which the cluster must confirm a record, with the opening of a client


class KafkaParam(Struct, frozen=True, kw_only=True):
    instance_id: InstanceId
    topic: Annotated[Text, Meta(examples=["outcomes"])]


class Producers:
    """Clients that send records, one per cluster. Each is opened at its first use, and closed with the engine.

    After a record that failed, a new client is opened: the cluster numbers the records of an idempotent producer, and
    refuses those after a missing one. The last delivery that uses the old client closes it.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._clients: dict[str, SharedClient] = {}  #: by cluster
        self._causes: defaultdict[str, Causes] = defaultdict(Causes)

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            for client in self._clients.values():
                await client.close()

    async def send(
        self, name: str, topic: str, record: bytes, key: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Send a record to a cluster, and return when the cluster has confirmed it.

        Raises SettingsError if the cluster has no address or the library is not installed; Undeliverable if the record
        is too large; LookupError if the topic cannot be used; ConnectionError otherwise.
        """
        where = f"topic {topic} of the cluster {name}"
        with named_causes(self._causes[name], where), deadline("the record was not confirmed", CONFIRMED):
            if name not in self._clients:
                self._clients[name] = SharedClient(partial(_producer, name, self._settings))
            async with self._clients[name].lease() as lease:
                producer = lease.client
                try:
                    known = producer.client.cluster.partitions_for_topic(topic)
                    topics = Topics(producer.client, [topic], name, create=True)
                    problem = "" if known else (await topics.look())[topic].problem
                    if not problem:  # the client would look for the topic without end
                        await producer.send_and_wait(topic, record, key=key, headers=headers)
                except BaseException as error:
                    lease.failed = True
                    if isinstance(error, library().errors.MessageSizeTooLargeError):
                        raise Undeliverable(f"{where} accepts no record of this size: {error}") from None
                    raise
            if problem:
                raise LookupError(problem)


@asynccontextmanager
async def _producer(name: str, settings: KafkaSettings) -> AsyncIterator[Any]:
    producer = await _started(name, connection(settings.instance(name)))
    try:
        yield producer
    finally:
        await _stop(producer)


async def _started(name: str, arguments: dict[str, Any], *, idempotent: bool = True) -> Any:
    client, refusals = library(), (library().errors.BrokerResponseError, library().errors.IncompatibleBrokerVersion)
    producer = client.AIOKafkaProducer(
        acks="all", enable_idempotence=idempotent, max_request_size=RECORD_LIMIT, **arguments
    )
    pace(producer.client)
    try:
        await producer.start()
    except BaseException as error:
        await _stop(producer)
        if not idempotent or not isinstance(error, refusals):
            raise
        # An older cluster, or a login without the right IdempotentWrite: retries may repeat records.
        log.warning("the cluster refuses idempotent producers", cluster=name, problem=str(error))
        return await _started(name, arguments, idempotent=False)
    return producer


async def _stop(producer: Any) -> None:
    """Close a client of the library, after it has sent the records that it holds if it can within two seconds."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        with anyio.move_on_after(2):
            await producer.stop()
        for _ in range(2):  # the second cancellation ends a wait for an answer
            if producer._sender.sender_task is not None:
                producer._sender.sender_task.cancel()
            await producer.client.close()


class KafkaDestination:
    def __init__(self, param: KafkaParam) -> None:
        self._param = param

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        request_id = context_of(record).request_id
        headers = [(ID, f"{request_id}-{pending.delivery_id}".encode()), (HOPS, b"%d" % context.hop())]
        if context.traceparent:
            headers.append(("traceparent", context.traceparent.encode()))
        producers: Producers = context.plugin.service
        await producers.send(self._param.instance_id, self._param.topic, record, request_id.encode(), headers)
