"""Options of an LTS trigger (FunctionGraph API: CreateFunctionTrigger), and the table ``[plugins.lts]``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine import LogTarget
from plugins._shared.fields import Text

MIB = 1 << 20


class LtsOptions(Struct, frozen=True, kw_only=True):
    log_group_id: Annotated[Text, Meta(title="Log group ID")]
    log_topic_id: Annotated[Text, Meta(title="Log stream ID")]


def refuse(options: LtsOptions, status_streams: Collection[LogTarget]) -> tuple[str, str] | None:
    """Refuse streams with the states of invocations: those that a trigger causes would write further lines."""
    if (options.log_group_id, options.log_topic_id) not in {
        (stream.group_id, stream.stream_id) for stream in status_streams
    }:
        return None
    reason = (
        "the engine writes the states of this project's invocations to this stream, so each call would cause another"
    )
    return "log_topic_id", f"{reason}: choose another stream"


class LtsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1, le=MIB)] = (
        75_000  #: bytes of lines after which a function is called without waiting
    )
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 1.0  #: seconds for which a smaller batch waits for more lines
    logs: Literal["string", "array"] = "string"  #: type of ``logs`` in an event: text with JSON, or array
    labels: bool = False  #: whether each line of an event has the labels of its request, an undocumented field
    size: Annotated[int, Meta(ge=16 * MIB)] = 256 * MIB  #: bytes of stored lines of all streams
    retention: Annotated[int, Meta(ge=1, le=365)] = 7  #: days for which lines of streams not created here are kept
