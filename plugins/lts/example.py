"""Example of an event of LTS: lines of a log stream. Its field ``data`` is base64 of JSON."""

from __future__ import annotations

from plugins.lts.events import Envelope
from plugins.lts.items import Item, encoded
from plugins.lts.lines import Row

_MOMENT = 1_772_346_600_123  #: milliseconds
_ITEM = Item(
    message="payment of order 7 failed",
    time=_MOMENT,
    host_name="web-1",
    ip="192.0.2.9",
    path="/var/log/shop.log",
    log_uid="5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
    line_no=1,
)


def example(kind: str) -> bytes:
    envelope = Envelope(owner="project1", log_group_id="shop", log_topic_id="errors", as_text=True)
    return next(envelope.events([Row(_MOMENT, 0, tuple(encoded([_ITEM])))])).payload
