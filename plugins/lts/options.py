"""Options of an LTS trigger: log group and stream to read (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from msgspec import Meta, Struct

from engine import LogTarget
from plugins._shared.fields import Text


class LtsOptions(Struct, frozen=True, kw_only=True):
    log_group_id: Annotated[Text, Meta(title="Log group ID")]
    log_topic_id: Annotated[Text, Meta(title="Log stream ID")]


def refuse(options: LtsOptions, status_streams: Collection[LogTarget]) -> tuple[str, str] | None:
    """Refuse streams with the states of invocations: those that a trigger causes would write further lines."""
    if (options.log_group_id, options.log_topic_id) not in {(one.group_id, one.stream_id) for one in status_streams}:
        return None
    reason = (
        "the engine writes the states of this project's invocations to this stream, so each call would cause another"
    )
    return "log_topic_id", f"{reason}: choose another stream"


def subject(options: LtsOptions) -> str:
    return f"{options.log_group_id} / {options.log_topic_id}"
