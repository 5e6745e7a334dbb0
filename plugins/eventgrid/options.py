"""Options of an EVENTGRID trigger: a channel, and the filter for its events."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from plugins._shared.fields import HIDDEN, Affix, Optional, Text


class EventGridOptions(Struct, frozen=True, kw_only=True):
    channel_id: Annotated[
        Text,
        Meta(examples=["mine"], extra={"help": "Senders post events to /triggers/eventgrid/ followed by this id."}),
    ]
    channel_name: Optional = ""
    source_name: Optional = ""
    trigger_name: Optional = ""
    event_types: Annotated[
        tuple[Text, ...], Meta(examples=["greeting"], extra={"help": "Types of events that match. Empty: all."})
    ] = ()
    agency: Optional = ""
    bucket: Annotated[Optional, Meta(extra={"help": "Objects of this bucket match. Empty: all."})] = ""
    prefix: Annotated[Affix, Meta(extra={"help": "Beginning of the object's key."})] = ""
    suffix: Annotated[Affix, Meta(extra={"help": "End of the object's key."})] = ""
    encode_key: Annotated[bool, Meta(title="Encode keys", extra={"help": "Percent-encode object keys in events."})] = (
        field(name="Key_encode", default=False)
    )
    key_encode: Annotated[bool | None, HIDDEN] = None  #: other spelling of the same option
    status: Annotated[Literal["ACTIVE", "DISABLE", "DISABLED", ""], HIDDEN] = ""

    def __post_init__(self) -> None:
        if self.key_encode is not None:
            msgspec.structs.force_setattr(self, "encode_key", self.key_encode)
            msgspec.structs.force_setattr(self, "key_encode", None)


def subject(options: EventGridOptions) -> str:
    types = f": {', '.join(options.event_types)}" if options.event_types else ""
    return f"{options.channel_id}{types}"
