"""Settings of WEBHOOK, the table ``[plugins.webhook]``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from plugins.webhook.signatures import key_of


class WebhookSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secrets: dict[str, str] = field(default_factory=dict)  #: keyed by the names that destinations use
    timeout: Annotated[float, Meta(gt=0, le=60)] = 30.0  #: seconds for one delivery's connection and answer

    def __post_init__(self) -> None:
        for secret in self.secrets.values():
            key_of(secret)
