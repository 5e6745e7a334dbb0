"""Fetches of records from a cluster. Skips records that the client cannot decode.

Brokers before Kafka 2.8 give no ids of topics. Each time that their topics may have been made anew, the last read
records are fetched again and compared.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Any

import structlog

from plugins.kafka.marks import Marks
from plugins.kafka.offsets import name_of
from plugins.kafka.settings import library

log = structlog.get_logger("functiond.plugins.kafka")

#: Milliseconds to fetch from one partition. The client may first wait half a second for the reply of another one.
APART = 1000


class StartAgain(Exception):
    """The positions of partitions no longer hold, so a new consumer must find their starts.

    ``rejected`` names partitions of which the cluster rejects the offset, or which hold another record before it.
    """

    def __init__(self, rejected: Iterable[str] = ()) -> None:
        self.rejected = frozenset(rejected)
        super().__init__(f"the cluster rejects the offsets of {', '.join(sorted(self.rejected))}")


class Fetches:
    """Fetches of one consumer, with the positions of its partitions."""

    def __init__(self, consumer: Any, marks: Marks) -> None:
        self._consumer, self._marks = consumer, marks
        self._in_doubt = False

    def recheck_topics(self, cluster: Any = None) -> None:
        """Let the next ``read`` fetch the last read records again, since topics may have been created again.

        The client calls this for new metadata. It requests metadata every few seconds, after a lost connection, and
        when a topic or a leader is missing.
        """
        self._in_doubt = True

    async def read(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        """Return records by partition, from the next offsets on.

        If a topic may have been created again, fetch once more from the last read records on. These are then returned
        too.

        A call of ``recheck_topics`` during the second fetch takes effect at the next call, so that each call makes
        progress.
        """
        found = await self._fetch(partitions, seconds, room)
        if self._in_doubt and self._marks.recheckable(partitions):
            self._in_doubt = False
            self._marks.recheck(partitions)
            found = await self._fetch(partitions, seconds, room)
        return found

    async def _fetch(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        try:
            return dict(await self._consumer.getmany(timeout_ms=max(0, int(seconds * 1000)), max_records=room))
        except UnicodeDecodeError:
            return await self._read_apart(partitions, room)
        except library().errors.NoOffsetForPartitionError:
            return {}  # of a partition whose start is not found yet
        except library().errors.OffsetOutOfRangeError as error:
            # The client also starts a partition whose start is not found yet, where the group has committed.
            if rejected := {partition for partition in error.args[0] if partition in partitions}:
                raise StartAgain(name_of(*partition) for partition in rejected) from None
            return {}

    async def _read_apart(self, partitions: Collection[Any], room: int) -> dict[Any, list[Any]]:
        """Return the records of the first partition that has any, after the client could not decode a record.

        The client decodes header names, which may be any bytes, and does not report which record failed. It drops all
        records of the failed fetch, so they are fetched again, partition by partition.
        """
        for partition in partitions:
            self._marks.rewind(partition)
        # The order is random, so that no partition is starved by another.
        for partition in random.sample(tuple(partitions), len(partitions)):
            try:
                if found := await self._consumer.getmany(partition, timeout_ms=APART, max_records=room):
                    return dict(found)
            except UnicodeDecodeError:
                return {partition: await self._read_singly(partition)}
        return {}

    async def _read_singly(self, partition: Any) -> list[Any]:
        """Return the records of a partition before the undecodable one.

        If the undecodable record is the first, log and skip it, and return none.
        """
        records, offset = list[Any](), self._marks.rewind(partition)
        try:
            while found := await self._consumer.getmany(partition, timeout_ms=APART, max_records=1):
                records += found[partition]
                offset = records[-1].offset + 1
        except UnicodeDecodeError as error:
            if not records:
                log.error("record skipped", partition=name_of(*partition), offset=offset, problem=str(error))
                self._marks.skip(partition)
        return records
