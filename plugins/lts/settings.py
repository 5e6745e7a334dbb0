"""``[plugins.lts]``: how lines are gathered, told and kept."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

MIB = 1 << 20


class LtsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1, le=MIB)] = 75_000  #: bytes of lines that call a function at once
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 1.0  #: seconds that fewer wait for more
    logs: Literal["string", "array"] = "string"  #: how ``logs`` stands in an event: as JSON text, or as it is
    labels: bool = False  #: whether each line has the labels it was sent with, beside the documented fields
    size: Annotated[int, Meta(ge=16 * MIB)] = 256 * MIB  #: bytes of lines that are kept: more than come at once
    retention: Annotated[int, Meta(ge=1, le=365)] = 7  #: days, of the streams that nobody has created
