"""Options of an SMN trigger: the URN of its topic (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from plugins._shared.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Annotated[
        Text, Meta(examples=["urn:smn:local-1:default:orders"], extra={"help": "URN, or the ARN of an SNS topic."})
    ]


def subject(options: SmnOptions) -> str:
    return options.topic_urn
