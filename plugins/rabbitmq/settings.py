"""Where the brokers are, how to log in there, and how messages become batches."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import SettingsError
from plugins._shared.fields import EVENT_LIMIT
from plugins.rabbitmq.options import RabbitOptions


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broker: what is set here goes before what a trigger says of it."""

    address: str = ""  #: ``host:port``; of a cluster several, with commas, of which the first that answers is taken
    user: str = "guest"
    password: str = "guest"
    tls: bool = False
    ca_file: str = ""  #: whom to believe; without, whom the machine believes
    cert_file: str = ""  #: of the client, with its key
    key_file: str = ""

    def __post_init__(self) -> None:
        if (self.cert_file or self.ca_file) and not self.tls:
            raise ValueError("ca_file and cert_file do nothing without tls = true")


class RabbitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    instances: dict[str, Instance] = field(default_factory=dict)  #: by instance id
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more messages
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = EVENT_LIMIT  #: of one event, unless one message has more
    check_every: Annotated[float, Meta(gt=0, le=300)] = 5.0  #: seconds of silence after which the exchange is looked at

    def broker(self, options: RabbitOptions) -> Instance:
        """Where a trigger's exchange is. Raises SettingsError."""
        known = self.instances.get(options.instance_id)
        if known is not None and known.address:  # a row can't turn the settings' password to another host
            return known
        if not options.connect_address:
            raise SettingsError(f"set plugins.rabbitmq.instances.{options.instance_id}.address: a trigger reads there")
        return replace(
            known or Instance(),
            address=options.connect_address,
            user=options.access_user or "guest",
            password=options.access_password,
            tls=options.ssl_enable,
        )
