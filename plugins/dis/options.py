"""Options of a DIS trigger (FunctionGraph API: CreateFunctionTrigger), and the table ``[plugins.dis]``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engine import InvalidField
from plugins._shared.batches import Ordering
from plugins._shared.fields import Text, UpTo10000
from plugins._shared.http_client import EndpointSettings

LONGEST = {"s": 60, "ms": 60_000}  #: longest polling interval by unit


class DisOptions(Struct, frozen=True, kw_only=True):
    stream_name: Annotated[Text, Meta(title="Stream", examples=["clicks"])]
    sharditerator_type: Annotated[
        Literal["TRIM_HORIZON", "LATEST"],
        Meta(
            title="Starting position",
            extra={
                "labels": {
                    "LATEST": "LATEST: records that come from now on",
                    "TRIM_HORIZON": "TRIM_HORIZON: the oldest record that is kept",
                }
            },
        ),
    ]
    polling_interval: Annotated[
        int,
        Meta(ge=1, extra={"help": "Time until an empty partition of a remote endpoint is read again."}),
    ] = 30
    polling_unit: Annotated[Literal["s", "ms"], Meta(extra={"labels": {"s": "Seconds", "ms": "Milliseconds"}})] = "s"
    batch_size: Annotated[UpTo10000, Meta(extra={"help": "Most records of one event."})] = 100
    max_fetch_bytes: Annotated[
        int, Meta(ge=0, le=4 << 20, title="Maximum bytes of a batch", extra={"help": "0: no limit."})
    ] = 1 << 20
    #: text in creations, boolean in updates
    is_serial: Annotated[
        Literal["true", "false"] | bool,
        Meta(
            title="Serial processing",
            extra={
                "help": "Whether reading waits for the end of the last batch's invocation.",
                "labels": {"true": "Yes", "false": "No"},
            },
        ),
    ] = "true"
    #: functiond only; ``record_key``: reading waits for no invocation, because those of a key run in order anyway
    ordering: Ordering = ""

    def __post_init__(self) -> None:
        if isinstance(self.is_serial, bool):
            msgspec.structs.force_setattr(self, "is_serial", str(self.is_serial).lower())
        longest = LONGEST[self.polling_unit]
        if self.polling_interval > longest:
            raise InvalidField("polling_interval", self.polling_interval, f"may be 1 to {longest} {self.polling_unit}")

    @property
    def serial(self) -> bool:
        return self.is_serial == "true" and not self.ordering

    @property
    def interval(self) -> float:
        """Polling interval in seconds, also if the unit is milliseconds."""
        return self.polling_interval * (1.0 if self.polling_unit == "s" else 0.001)


class DisSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DIS. If ``endpoint`` is empty, the engine serves streams itself."""
