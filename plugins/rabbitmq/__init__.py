"""RabbitMQ plugin. Messages of an exchange invoke a function in batches."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins._shared.batches import example_of
from plugins._shared.fields import used_instance
from plugins.rabbitmq.options import RabbitOptions, RabbitSettings
from plugins.rabbitmq.source import RabbitTrigger

plugin = Plugin(
    kinds=("RABBITMQ",),
    service=RabbitSettings,
    options=RabbitOptions,
    trigger=RabbitTrigger,
    uses=used_instance,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        unique=("instance_id", "vhost", "exchange_name", "queue"),
        longest_delay=4.0,  # with its random share at most 5: meanwhile, nothing looks at the binding
    ),
    example=lambda kind: example_of("RABBITMQ", "9a0364b9-e99b-480d-d25e-1f0284c85555"),
    display=TriggerDisplay(
        about={"RABBITMQ": "Messages of an exchange."},
        subject=lambda options: f"{options.exchange_name} on {options.instance_id}",
        module="aiormq",
        extra="rabbitmq",
    ),
)
