"""Options of an LTS trigger: log group and stream to read (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from msgspec import Struct

from plugins._shared.fields import Text


class LtsOptions(Struct, frozen=True, kw_only=True):
    log_group_id: Text
    log_topic_id: Text  #: id of the stream
