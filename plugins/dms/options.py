"""Options of a DMS trigger (``event_data`` of CreateFunctionTrigger): queue, consumer group, and interval."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from plugins._shared.fields import Text


class DmsOptions(Struct, frozen=True, kw_only=True):
    queue_id: Annotated[Text, Meta(title="Queue ID")]
    consumer_group_id: Annotated[Text, Meta(title="Consumer group ID")]
    polling_interval: Annotated[int, Meta(ge=1, le=60, title="Polling interval (s)")] = 30


def subject(options: DmsOptions) -> str:
    return options.queue_id
