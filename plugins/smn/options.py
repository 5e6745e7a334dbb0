"""Options of an SMN trigger: the URN of its topic (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from msgspec import Struct

from plugins._shared.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Text  #: URN, or the ARN of an SNS topic
