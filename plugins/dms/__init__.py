"""DMS, the vendor's retired queue service. Its triggers are stored, but call no function: the plugin has no source."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins._shared.fields import Text


class DmsOptions(Struct, frozen=True, kw_only=True):
    queue_id: Annotated[Text, Meta(title="Queue ID")]
    consumer_group_id: Annotated[Text, Meta(title="Consumer group ID")]
    polling_interval: Annotated[int, Meta(ge=1, le=60, title="Polling interval (s)")] = 30


plugin = Plugin(
    kinds=("DMS",),
    options=DmsOptions,
    rules=TriggerRules(vendor=True, unique=("queue_id", "consumer_group_id")),
    display=TriggerDisplay(
        about={"DMS": "The vendor's retired queue service: the trigger is stored, and calls nothing."},
        subject=lambda options: options.queue_id,
    ),
)
