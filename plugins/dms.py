"""DMS, the retired queue service. Its triggers are stored, but have no source."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import Plugin, TriggerRules
from plugins._shared.fields import Text


class DmsOptions(Struct, frozen=True, kw_only=True):
    queue_id: Text
    consumer_group_id: Text
    polling_interval: Annotated[int, Meta(ge=1, le=60)] = 30  #: seconds


plugin = Plugin(
    kinds=("DMS",),
    options=DmsOptions,
    rules=TriggerRules(vendor=True, unique=("queue_id", "consumer_group_id")),
)
