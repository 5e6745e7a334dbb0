"""Where the brokers are, how to log in there, and how messages become batches."""

from __future__ import annotations

import ssl
from typing import Annotated, Any

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import SettingsError
from plugins.rabbitmq.options import RabbitOptions

#: Bytes that one event may have (spec triggers_runtime, 1.0).
EVENT_LIMIT = 6 << 20


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broker: what is set here goes before what a trigger says of it."""

    address: str = ""  #: ``host:port``
    user: str = ""
    password: str = ""
    tls: bool = False
    ca_file: str = ""  #: whom to believe; without, whom the machine believes

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments of the client library. Raises OSError if the file is not there."""
        host, _, port = self.address.rpartition(":") if ":" in self.address else (self.address, "", "")
        arguments: dict[str, Any] = {"host": host, "login": self.user or "guest", "password": self.password or "guest"}
        if self.tls:
            arguments["ssl"] = True
            arguments["ssl_context"] = ssl.create_default_context(cafile=self.ca_file or None)
        return {**arguments, "port": int(port or (5671 if self.tls else 5672))}


class RabbitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    instances: dict[str, Instance] = field(default_factory=dict)  #: by instance id
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more messages
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = EVENT_LIMIT  #: of one event, unless one message has more
    check_every: Annotated[float, Meta(gt=0, le=300)] = 30.0  #: seconds of silence after which the queue is looked at

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
            user=options.access_user,
            password=options.access_password,
            tls=options.ssl_enable,
        )


def library() -> Any:
    """The client. Raises SettingsError if it is not installed."""
    try:
        import aio_pika
    except ImportError:
        raise SettingsError("RabbitMQ needs the extra rabbitmq: pip install 'functiond[rabbitmq]'") from None
    return aio_pika
