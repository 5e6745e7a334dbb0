"""What an SMN trigger is told: the topic (spec triggers_runtime, 1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from plugins._shared.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Text  #: also the ARN of a topic of SNS


def shown(options: SmnOptions, trigger_id: str, urn: str, settings: Any) -> Mapping[str, Any]:
    """Where topics elsewhere push to: who knows it is the only one whose subscription counts."""
    return {"path": f"/triggers/smn/{trigger_id}"}
