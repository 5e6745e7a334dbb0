"""Conversion of log lines to the events that functions get (FunctionGraph's documented LTS event).

Lines that clients sent and lines that functions wrote are never put into one event, because only the latter have hops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from engine import Event
from plugins.lts.lines import Item, Row, encoded, joined


class Envelope(Struct, frozen=True, kw_only=True):
    """Fields that are the same in all events of a trigger."""

    owner: str
    log_group_id: str
    log_topic_id: str
    as_text: bool  #: ``logs`` is a text with JSON, not the array itself

    def events(self, rows: Sequence[Row]) -> Iterator[Event]:
        for some in ([row for row in rows if not row.function], [row for row in rows if row.function]):
            hops = max((row.hops for row in some), default=0)
            for logs in joined(item for row in some for item in row.items):
                yield Event(payload=msgspec.json.encode({"lts": {"data": self._data(logs)}}), hops=hops)

    def _data(self, logs: bytes) -> bytes:
        """Return the event's field ``data`` as JSON. The encoder writes these bytes as base64."""
        return msgspec.json.encode(
            {
                "logs": logs.decode() if self.as_text else msgspec.Raw(logs),
                "owner": self.owner,
                "log_group_id": self.log_group_id,
                "log_topic_id": self.log_topic_id,
            }
        )


def example(kind: str) -> bytes:
    """Return the event of a line, as an example."""
    moment = 1_772_346_600_123  #: milliseconds
    item = Item(
        message="payment of order 7 failed",
        time=moment,
        host_name="web-1",
        ip="192.0.2.9",
        path="/var/log/shop.log",
        log_uid="5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
        line_no=1,
    )
    envelope = Envelope(owner="project1", log_group_id="shop", log_topic_id="errors", as_text=True)
    return next(envelope.events([Row(moment, 0, tuple(encoded([item])))])).payload
