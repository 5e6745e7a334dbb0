"""Start offsets of a consumer's partitions, from the trigger's cursors and the offsets that the cluster reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import structlog
from msgspec import Struct

from plugins.kafka.offsets import ClusterOffsets, PartitionOffset, begin, begin_anew, ends_early, name_of
from plugins.kafka.settings import KafkaSettings

log = structlog.get_logger("functiond.plugins.kafka")


class Start(Struct, frozen=True, kw_only=True):
    """Position at which reading a partition starts, with the offsets that the cluster reported."""

    position: PartitionOffset
    reported: ClusterOffsets
    stored: bool  #: a cursor for this topic exists, at the position or before it
    remade: bool  #: the topic was made anew since it was last read


class Starts:
    """Finder of the offsets at which a consumer starts to read its partitions."""

    def __init__(self, consumer: Any, cluster: str, settings: KafkaSettings) -> None:
        self._consumer, self._cluster, self._settings = consumer, cluster, settings

    async def find(
        self, partitions: Collection[Any], cursors: Mapping[str, PartitionOffset], remade: Collection[Any]
    ) -> dict[Any, Start]:
        """Return the start of each partition. Reads offsets from the cluster.

        ``remade`` contains partitions whose records have proved that their topic was deleted and created again.
        """
        fetched = {partition: self._consumer.highwater(partition) for partition in partitions}
        first = await self._consumer.beginning_offsets(partitions)
        end = await self._consumer.end_offsets(partitions)
        topics = {name.rpartition("/")[0] for name in cursors}
        starts: dict[Any, Start] = {}
        for partition in partitions:
            reported = ClusterOffsets(
                first=first[partition],
                end=max(end[partition], fetched[partition] or 0),
                committed=await self._consumer.committed(partition),
                fetched=fetched[partition] is not None,
            )
            name = name_of(*partition)
            cursor = cursors.get(name)
            if partition in remade or ends_early(cursor.offset if cursor else None, reported):
                starts[partition] = self._start_anew(cursor, reported)
            else:
                starts[partition] = self._continue(name, cursor, reported, topic_known=partition.topic in topics)
        return starts

    def _continue(
        self, name: str, cursor: PartitionOffset | None, reported: ClusterOffsets, *, topic_known: bool
    ) -> Start:
        offset = cursor.offset if cursor else None
        begun = begin(offset, reported, topic_known=topic_known, start=self._settings.start)
        if cursor is not None and cursor.offset < reported.first:
            log.warning(
                "records were removed that were not read", partition=name, records=reported.first - cursor.offset
            )
        if cursor is not None and begun == cursor.offset:
            position = cursor  # with the time of its last record
        else:
            position = PartitionOffset(cluster=self._cluster, offset=begun)
        return Start(position=position, reported=reported, stored=cursor is not None, remade=False)

    def _start_anew(self, cursor: PartitionOffset | None, reported: ClusterOffsets) -> Start:
        offset = begin_anew(cursor.offset if cursor else None, reported, shared=bool(self._settings.group))
        position = PartitionOffset(cluster=self._cluster, offset=offset)
        return Start(position=position, reported=reported, stored=False, remade=True)
