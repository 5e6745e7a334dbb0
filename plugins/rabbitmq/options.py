"""Options of a RabbitMQ trigger (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from plugins._shared.fields import Addresses, NeededSecret, Text, UpTo1000
from plugins._shared.ordering import Ordering

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


def subject(options: RabbitOptions) -> str:
    return f"{options.exchange_name} on {options.instance_id}"
