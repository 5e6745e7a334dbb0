"""Options of an SMN trigger: the topic (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from plugins._shared.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Text  #: URN, or the ARN of an SNS topic


def reply_fields(options: SmnOptions, trigger_id: str, urn: str, settings: Any) -> Mapping[str, Any]:
    """Return the path to which remote topics push. Only senders that have the path can confirm a subscription."""
    return {"path": f"/triggers/smn/{trigger_id}"}
