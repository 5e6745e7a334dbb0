"""Options of a WEBHOOK trigger (``event_data`` of CreateFunctionTrigger), and the table ``[plugins.webhook]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from engine import InvalidField
from plugins._shared.fields import Name
from plugins.webhook.signatures import key_of

Secret = Annotated[str, Meta(min_length=16, max_length=1024, extra={"secret": True})]


class WebhookOptions(Struct, frozen=True, kw_only=True):
    name: Annotated[Name, Meta(examples=["pushes"])]
    secret: Annotated[Secret, Meta(extra={"help": "16 characters or more, with which senders sign their requests."})]
    scheme: Annotated[
        Literal["standard", "github"],
        Meta(
            title="Signature scheme", extra={"labels": {"standard": "Standard Webhooks", "github": "GitHub (X-Hub-…)"}}
        ),
    ] = "standard"

    def __post_init__(self) -> None:
        try:
            key_of(self.secret)
        except ValueError as error:
            raise InvalidField("secret", "******", str(error)) from None


class WebhookSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secrets: dict[str, str] = field(default_factory=dict)  #: keyed by the names that destinations use
    timeout: Annotated[float, Meta(gt=0, le=60)] = 30.0  #: seconds for one delivery's connection and answer

    def __post_init__(self) -> None:
        for secret in self.secrets.values():
            key_of(secret)
