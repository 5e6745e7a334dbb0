"""Events of a batch of lines (FunctionGraph's documented LTS event).

Lines that clients sent and lines that functions wrote never share an event, because only lines of functions count hops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from engine import Event
from plugins.lts.items import joined
from plugins.lts.lines import Row


class Envelope(Struct, frozen=True, kw_only=True):
    """Fields that all events of a trigger share."""

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
        """Return the JSON of ``data`` as bytes, which the encoder of the event writes as base64."""
        return msgspec.json.encode(
            {
                "logs": logs.decode() if self.as_text else msgspec.Raw(logs),
                "owner": self.owner,
                "log_group_id": self.log_group_id,
                "log_topic_id": self.log_topic_id,
            }
        )
