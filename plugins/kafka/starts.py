"""Where the partitions of a consumer are begun, by the trigger's cursors and by what the cluster says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import structlog
from msgspec import Struct

from plugins.kafka.offsets import Found, PartitionOffset, begin, begin_anew, ends_early, name_of
from plugins.kafka.settings import KafkaSettings

log = structlog.get_logger("functiond.plugins.kafka")


class Start(Struct, frozen=True, kw_only=True):
    position: PartitionOffset
    found: Found
    stored: bool  #: the partition has a cursor for this topic, at the position or before it
    remade: bool  #: the topic is not the one that was read


class Starts:
    """Finds where to begin."""

    def __init__(self, consumer: Any, cluster: str, settings: KafkaSettings) -> None:
        self._consumer, self._cluster, self._settings = consumer, cluster, settings

    async def find(
        self, partitions: Collection[Any], own: Mapping[str, PartitionOffset], remade: Collection[Any]
    ) -> dict[Any, Start]:
        """Ask the cluster, and return the start of each partition.

        ``own`` are the cursors, ``remade`` the partitions whose records have shown that their topic was made anew.
        """
        fetched = {one: self._consumer.highwater(one) for one in partitions}
        first = await self._consumer.beginning_offsets(partitions)
        end = await self._consumer.end_offsets(partitions)
        topics = {name.rpartition("/")[0] for name in own}
        starts: dict[Any, Start] = {}
        for one in partitions:
            found = Found(
                first=first[one],
                end=max(end[one], fetched[one] or 0),
                committed=await self._consumer.committed(one),
                fetched=fetched[one] is not None,
            )
            mine = own.get(name_of(*one))
            if one in remade or ends_early(mine.offset if mine else None, found):
                starts[one] = self._anew(mine, found)
            else:
                starts[one] = self._on(name_of(*one), mine, found, topic_known=one.topic in topics)
        return starts

    def _on(self, name: str, mine: PartitionOffset | None, found: Found, *, topic_known: bool) -> Start:
        offset = mine.offset if mine else None
        begun = begin(offset, found, topic_known=topic_known, start=self._settings.start)
        if mine is not None and mine.offset < found.first:
            log.warning("records are gone that were not read", partition=name, records=found.first - mine.offset)
        position = (
            mine if mine is not None and begun == mine.offset else PartitionOffset(cluster=self._cluster, offset=begun)
        )
        return Start(position=position, found=found, stored=mine is not None, remade=False)

    def _anew(self, mine: PartitionOffset | None, found: Found) -> Start:
        offset = begin_anew(mine.offset if mine else None, found, shared=bool(self._settings.group))
        return Start(
            position=PartitionOffset(cluster=self._cluster, offset=offset), found=found, stored=False, remade=True
        )
