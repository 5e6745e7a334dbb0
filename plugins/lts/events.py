"""What a batch of lines becomes: events of the documented shape (spec triggers_runtime, 1.5).

What was sent and what functions wrote never share an event, so that an event tells how many functions led to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from engine import Event
from plugins.lts.items import joined
from plugins.lts.lines import Row


class Envelope(Struct, frozen=True, kw_only=True):
    """What the events of a trigger have in common."""

    owner: str
    log_group_id: str
    log_topic_id: str
    as_text: bool  #: ``logs`` is JSON text, not the array itself

    def events(self, rows: Sequence[Row]) -> Iterator[Event]:
        for some in ([row for row in rows if not row.function], [row for row in rows if row.function]):
            hops = max((row.hops for row in some), default=0)
            for logs in joined(item for row in some for item in row.items):
                yield Event(payload=msgspec.json.encode({"lts": {"data": self._data(logs)}}), hops=hops)

    def _data(self, logs: bytes) -> bytes:
        """In JSON, bytes are base64."""
        return msgspec.json.encode(
            {
                "logs": logs.decode() if self.as_text else msgspec.Raw(logs),
                "owner": self.owner,
                "log_group_id": self.log_group_id,
                "log_topic_id": self.log_topic_id,
            }
        )
