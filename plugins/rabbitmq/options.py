"""Options of a RabbitMQ trigger (FunctionGraph API: CreateFunctionTrigger), and settings of brokers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import EVENT_LIMIT, SettingsError
from plugins._shared.batches import Ordering
from plugins._shared.fields import Addresses, NeededSecret, Shared, Text, UpTo1000

Optional = Annotated[str, Meta(max_length=1024)]


class RabbitOptions(Struct, frozen=True, kw_only=True):
    instance_id: Annotated[
        Text, Meta(examples=["main"], extra={"help": "Id of the broker, or its name in the engine's settings."})
    ]
    exchange_name: Annotated[Text, Meta(title="Exchange", examples=["orders"])]
    access_password: Annotated[NeededSecret, Meta(title="Password")]
    batch_size: Annotated[UpTo1000, Meta(extra={"help": "Most messages of one event.", "initial": 10})]
    vhost: Annotated[Optional, Meta(title="Virtual host")] = ""
    access_user: Annotated[Optional, Meta(title="User")] = ""
    connect_address: Annotated[
        Addresses,
        Meta(title="Addresses", examples=["127.0.0.1:5672"], extra={"help": "host:port, several separated by commas."}),
    ] = ""
    ssl_enable: Annotated[bool, Meta(title="TLS", extra={"help": "Connect over TLS."})] = False
    #: functiond only
    queue: Annotated[
        Optional,
        Meta(extra={"fixed": True, "help": "Existing durable queue to read, in place of one of the trigger's own."}),
    ] = ""
    ordering: Ordering = ""  #: functiond only; the key of a message is its routing key


class Instance(Shared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address and login of a broker. If the address is set, they replace those in triggers' options."""

    address: str = ""  #: ``host:port``; several with commas for a cluster: the first that answers is used
    user: str = "guest"
    password: str = "guest"
    tls: bool = False
    ca_file: str = ""  #: trusted authorities; empty: those of the machine
    cert_file: str = ""  #: client certificate
    key_file: str = ""

    def __post_init__(self) -> None:
        if (self.cert_file or self.ca_file) and not self.tls:
            raise ValueError("ca_file and cert_file need tls = true")


class RabbitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    instances: dict[str, Instance] = field(default_factory=dict)  #: keyed by instance id
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more messages
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = (
        EVENT_LIMIT  #: bytes of one event, unless a single message has more
    )
    check_every: Annotated[float, Meta(gt=0, le=300)] = 1.0  #: seconds between two looks at the queue's binding

    def broker(self, options: RabbitOptions) -> Instance:
        """Return address and login of a trigger's broker.

        Raises SettingsError if neither the settings nor the options contain an address.
        """
        instance = self.instances.get(options.instance_id)
        if instance is not None and instance.address:  # options must not send the settings' password to another host
            return instance
        if not options.connect_address:
            raise SettingsError(f"set plugins.rabbitmq.instances.{options.instance_id}.address: a trigger reads there")
        return replace(
            instance or Instance(),
            address=options.connect_address,
            user=options.access_user or "guest",
            password=options.access_password,
            tls=options.ssl_enable,
        )
