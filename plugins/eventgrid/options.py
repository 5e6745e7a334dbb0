"""Options of an EVENTGRID trigger: a channel, and the filter for its events."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from plugins._shared.fields import Affix, Text

Optional = Annotated[str, Meta(max_length=255)]


class EventGridOptions(Struct, frozen=True, kw_only=True):
    channel_id: Text
    channel_name: Optional = ""
    source_name: Optional = ""
    trigger_name: Optional = ""
    event_types: tuple[Text, ...] = ()
    agency: Optional = ""
    bucket: Optional = ""
    prefix: Affix = ""
    suffix: Affix = ""
    encode_key: bool = field(name="Key_encode", default=False)  #: percent-encode object keys in events
    key_encode: bool | None = None  #: other spelling of the same option
    status: Literal["ACTIVE", "DISABLE", "DISABLED", ""] = ""

    def __post_init__(self) -> None:
        if self.key_encode is not None:
            msgspec.structs.force_setattr(self, "encode_key", self.key_encode)
            msgspec.structs.force_setattr(self, "key_encode", None)
