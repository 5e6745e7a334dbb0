"""RabbitMQ: messages of an exchange that call a function in batches."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import Plugin, TriggerRules
from plugins.fields import NeededSecret, Text, UpTo1000

Optional = Annotated[str, Meta(max_length=1024)]


class RabbitOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    exchange_name: Text
    access_password: NeededSecret
    batch_size: UpTo1000
    vhost: Optional = ""
    access_user: Optional = ""
    connect_address: Optional = ""
    ssl_enable: bool = False


plugin = Plugin(
    kinds=("RABBITMQ",),
    options=RabbitOptions,
    rules=TriggerRules(vendor=True, may_disable=False, unique=("instance_id", "vhost", "exchange_name")),
)
