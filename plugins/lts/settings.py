"""``[plugins.lts]``: size and maximum wait of batches, form of the event, and retention of stored lines."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

MIB = 1 << 20


class LtsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1, le=MIB)] = (
        75_000  #: bytes of lines after which a function is called without waiting
    )
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 1.0  #: seconds for which a smaller batch waits for more lines
    logs: Literal["string", "array"] = "string"  #: type of ``logs`` in an event: text with JSON, or array
    labels: bool = False  #: whether each line of an event has the labels of its request, an undocumented field
    size: Annotated[int, Meta(ge=16 * MIB)] = 256 * MIB  #: bytes of stored lines of all streams
    retention: Annotated[int, Meta(ge=1, le=365)] = 7  #: days for which lines of streams not created here are kept
