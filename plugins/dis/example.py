"""Example of an event of DIS: records of a stream's partition. Their data is base64."""

from __future__ import annotations

from plugins.dis.access import Page, Record
from plugins.dis.events import events_of
from plugins.dis.options import DisOptions

_RECORDS = [
    Record(sequence_number="18", data=b'{"user": "u1", "page": "/"}', partition_key="u1"),
    Record(sequence_number="19", data=b'{"user": "u2", "page": "/cart"}', partition_key="u2"),
]


def example(kind: str) -> bytes:
    options = DisOptions(stream_name="clicks", sharditerator_type="LATEST")
    page = Page(records=_RECORDS, next_partition_cursor="eyJpdGVyIjoiMjAifQ==")
    return events_of(options, "shardId-0000000000", page)[0][0].payload
