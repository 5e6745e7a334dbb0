"""Options of a WEBHOOK trigger (``event_data`` of CreateFunctionTrigger), and the table ``[plugins.webhook]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from engine import InvalidField
from plugins._shared.fields import Name, Shared
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


class SharedSecret(Shared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secret: str


class WebhookSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: keyed by the names that destinations use: text, or a table with ``secret`` and the ``projects`` that may use it
    secrets: dict[str, str | SharedSecret] = field(default_factory=dict)
    timeout: Annotated[float, Meta(gt=0, le=60)] = 30.0  #: seconds for one delivery's connection and answer

    def __post_init__(self) -> None:
        for given in self.secrets.values():
            key_of(given if isinstance(given, str) else given.secret)

    def secret(self, name: str) -> SharedSecret | None:
        given = self.secrets.get(name)
        return SharedSecret(secret=given) if isinstance(given, str) else given
