"""Which stream an LTS trigger reads (spec triggers_runtime, 1.5)."""

from __future__ import annotations

from msgspec import Struct

from plugins._shared.fields import Text


class LtsOptions(Struct, frozen=True, kw_only=True):
    log_group_id: Text
    log_topic_id: Text  #: of the stream
