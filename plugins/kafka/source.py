"""Source of KAFKA and OPENSOURCEKAFKA. Reads topics from the trigger's cursors on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins._shared.fields import egress_to
from plugins.kafka.client import connection, library, named_causes, pace
from plugins.kafka.fetches import StartAgain
from plugins.kafka.options import KafkaOptions, KafkaSettings, OpenKafkaOptions
from plugins.kafka.reader import LOOK, Reader

log = structlog.get_logger("functiond.plugins.kafka")

#: Milliseconds that a broker waits for records before it answers a fetch.
FETCH_WAIT = 2000


class KafkaTrigger:
    def __init__(self, options: KafkaOptions | OpenKafkaOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: KafkaSettings = context.plugin.settings
        rejected: frozenset[str] = frozenset()
        anew: set[str] = set()
        with named_causes(), egress_to(context.plugin, self._options):
            while True:
                async with _consumer(self._options, settings, context) as consumer:
                    reader = Reader(self._options, settings, context, consumer, rejected, anew)
                    try:
                        await reader.run(task_status)
                    except StartAgain as error:
                        if rejected and error.rejected <= rejected and not reader.accepted:
                            raise ConnectionError(str(error)) from None
                        rejected = error.rejected


@asynccontextmanager
async def _consumer(
    options: KafkaOptions | OpenKafkaOptions, settings: KafkaSettings, context: TriggerContext
) -> AsyncIterator[Any]:
    consumer = library().AIOKafkaConsumer(
        group_id=f"{settings.group}:{context.function}" if settings.group else f"functiond-{context.trigger_id}",
        enable_auto_commit=False,
        auto_offset_reset="none",  # offsets that are gone are reported, not skipped
        isolation_level=options.isolation,
        session_timeout_ms=int(settings.session_timeout * 1000),
        heartbeat_interval_ms=int(settings.session_timeout * 300),
        max_poll_interval_ms=2**31 - 1,  # a full backlog may stop reading for days; heartbeats continue
        metadata_max_age_ms=int(LOOK * 1000),
        fetch_max_wait_ms=FETCH_WAIT,
        fetch_max_bytes=settings.batch_bytes,
        max_partition_fetch_bytes=min(settings.batch_bytes, 1 << 20),  # larger records are fetched, too, one by one
        **connection(settings.cluster(options)),
    )
    pace(consumer._client)
    try:
        await consumer.start()
        consumer._fetcher._fetcher_timeout = FETCH_WAIT / 1000  # the client would wake five times a second for nothing
        yield consumer
    finally:
        # The client raises CancelledError if its own tasks were cancelled, which would hide the cause.
        with suppress(asyncio.CancelledError), anyio.move_on_after(2, shield=True):
            if context.deleted and not settings.group:
                await _delete_group(consumer, f"functiond-{context.trigger_id}")
        with suppress(asyncio.CancelledError), anyio.move_on_after(2, shield=True):
            await consumer.stop()


async def _delete_group(consumer: Any, group: str) -> None:
    """Delete the group of a deleted trigger, so that tools list it no more. Brokers drop others in time."""
    from aiokafka.protocol.admin import DeleteGroupsRequest

    try:
        await consumer._coordinator.ensure_coordinator_known()
        await consumer._client.send(consumer._coordinator.coordinator_id, DeleteGroupsRequest([group]))
    except Exception as error:
        log.info("group not deleted", group=group, problem=str(error))
