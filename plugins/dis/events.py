"""Conversion of records to the events that functions get (FunctionGraph's documented DIS event)."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from engine import Event
from plugins._shared.batches import by_key, ordering_key, packed
from plugins.dis.access import Page, Record
from plugins.dis.options import DisOptions

#: Bytes of one event's JSON, below the limit of an event: 10,000 records with long keys would exceed that.
LARGEST = 5 << 20


def events_of(options: DisOptions, partition: str, page: Page) -> list[tuple[Event, str]]:
    """Return the events of a page of records, each with the sequence number of the last record of its batch.

    With the option ``ordering``, a batch is one event for each partition key of its records.
    """
    batches = packed(page.records, _size, LARGEST, options.batch_size)
    if not options.ordering:
        return [(_event(options, partition, page, batch), batch[-1].sequence_number) for batch in batches]
    name = f"DIS:{options.stream_name}:{partition}"
    return [
        (replace(_event(options, partition, page, group), ordering_key=key), batch[-1].sequence_number)
        for batch in batches
        for key, group in by_key(batch, lambda entry: ordering_key((entry.partition_key or "").encode(), name)).items()
    ]


def _size(record: Record) -> int:
    return len(record.data) * 4 // 3 + 6 * len(record.partition_key or "") + 100


def _event(options: DisOptions, partition: str, page: Page, batch: list[Record]) -> Event:
    records = [
        {"partition_key": entry.partition_key or "", "data": entry.data, "sequence_number": entry.sequence_number}
        for entry in batch
    ]
    message = {
        "next_partition_cursor": page.next_partition_cursor,
        "records": records,
        "millis_behind_latest": "",
    }
    shown = {"ShardID": partition, "Message": message, "Tag": "latest", "StreamName": options.stream_name}
    return Event(payload=msgspec.json.encode(shown), hops=max(entry.hops for entry in batch))


def example(kind: str) -> bytes:
    """Return the event of two records, as an example. Their data is base64."""
    records = [
        Record(sequence_number="18", data=b'{"user": "u1", "page": "/"}', partition_key="u1"),
        Record(sequence_number="19", data=b'{"user": "u2", "page": "/cart"}', partition_key="u2"),
    ]
    options = DisOptions(stream_name="clicks", sharditerator_type="LATEST")
    page = Page(records=records, next_partition_cursor="eyJpdGVyIjoiMjAifQ==")
    return events_of(options, "shardId-0000000000", page)[0][0].payload
