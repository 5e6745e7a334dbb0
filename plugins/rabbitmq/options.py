"""Options of a RabbitMQ trigger (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from plugins._shared.fields import Addresses, NeededSecret, Text, UpTo1000
from plugins._shared.ordering import Ordering

Optional = Annotated[str, Meta(max_length=1024)]


class RabbitOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    exchange_name: Text
    access_password: NeededSecret
    batch_size: UpTo1000
    vhost: Optional = ""
    access_user: Optional = ""
    connect_address: Addresses = ""
    ssl_enable: bool = False
    ordering: Ordering = ""  #: functiond only; the key of a message is its routing key
