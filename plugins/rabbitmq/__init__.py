"""RabbitMQ plugin. Messages of an exchange invoke a function in batches."""

from __future__ import annotations

from engine import Plugin, TriggerRules
from plugins.rabbitmq.options import RabbitOptions
from plugins.rabbitmq.settings import RabbitSettings
from plugins.rabbitmq.source import RabbitTrigger

plugin = Plugin(
    kinds=("RABBITMQ",),
    service=RabbitSettings,
    options=RabbitOptions,
    trigger=RabbitTrigger,
    rules=TriggerRules(vendor=True, may_disable=False, unique=("instance_id", "vhost", "exchange_name")),
)
