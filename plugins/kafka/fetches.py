"""Fetches the records of partitions, past what the client cannot decode, and again where their topic is in doubt."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import structlog

from plugins.kafka.marks import Marks
from plugins.kafka.offsets import name_of

log = structlog.get_logger("functiond.plugins.kafka")

#: Milliseconds for what one partition has; the client may wait half a second for another one's answer first.
APART = 1000


class Fetches:
    def __init__(self, consumer: Any, marks: Marks) -> None:
        self._consumer, self._marks = consumer, marks
        self._in_doubt = False

    def doubt(self, cluster: Any = None) -> None:
        """Note that topics may have been made anew. The client calls this when it has new metadata.

        It asks for them every few minutes, after a lost connection, and when a topic or a leader is gone.
        """
        self._in_doubt = True

    async def read(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        """Return records by partition. In doubt, drop them, and fetch again from the last records that were read.

        A second doubt in the meantime waits for the next call, so that each call makes progress.
        """
        found = await self._fetch(partitions, seconds, room)
        if self._in_doubt:
            self._in_doubt = False
            self._marks.look_again(partitions)
            found = await self._fetch(partitions, seconds, room)
        return found

    async def _fetch(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        try:
            return dict(await self._consumer.getmany(timeout_ms=max(0, int(seconds * 1000)), max_records=room))
        except UnicodeDecodeError:
            return await self._read_apart(partitions, room)

    async def _read_apart(self, partitions: Collection[Any], room: int) -> dict[Any, list[Any]]:
        """The client decodes names of headers, which may be any bytes, and does not say where it could not.

        What it had read by then is lost with that, so it is read again, partition by partition.
        """
        for one in partitions:
            self._marks.rewind(one)
        for one in random.sample(tuple(partitions), len(partitions)):  # none waits for ever behind another
            try:
                if found := await self._consumer.getmany(one, timeout_ms=APART, max_records=room):
                    return dict(found)
            except UnicodeDecodeError:
                return {one: await self._read_singly(one)}
        return {}

    async def _read_singly(self, one: Any) -> list[Any]:
        """Return the records up to the one that cannot be read. If that one is the first, log it and leave it out."""
        records, offset = list[Any](), self._marks.rewind(one)
        try:
            while found := await self._consumer.getmany(one, timeout_ms=APART, max_records=1):
                records += found[one]
                offset = records[-1].offset + 1
        except UnicodeDecodeError as error:
            if not records:
                log.error("record passed over", partition=name_of(*one), offset=offset, problem=str(error))
                self._marks.pass_over(one)
        return records
