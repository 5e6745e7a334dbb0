"""Options of an SMN trigger: the URN of its topic (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from plugins._shared.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Text  #: URN, or the ARN of an SNS topic


def reply_fields(options: SmnOptions, trigger_id: str, urn: str, settings: Any) -> Mapping[str, Any]:
    """Return the path to which a remote topic sends messages for the trigger, as a field of API replies.

    Only senders to whom this path is known can confirm a subscription.
    """
    return {"path": f"/triggers/smn/{trigger_id}"}
