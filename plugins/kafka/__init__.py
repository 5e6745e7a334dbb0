"""Kafka, the vendor's or anyone's: records of topics call a function in batches, and outcomes become records."""

from __future__ import annotations

from engine import Plugin, TriggerRules
from plugins.kafka.destination import KafkaDestination, KafkaParam, Producers
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions
from plugins.kafka.settings import KafkaSettings
from plugins.kafka.source import KafkaTrigger

plugin = Plugin(
    kinds=("KAFKA",),
    service=KafkaSettings,
    serve=Producers,
    options=KafkaOptions,
    trigger=KafkaTrigger,
    param=KafkaParam,
    destination=KafkaDestination,
    rules=TriggerRules(vendor=True, starts_disabled=True, pulls=True, unique=("instance_id", "topic_ids")),
)
#: Starts disabled like the vendor's own (spec triggers_runtime, 1.8: "both made DISABLED"; the API's list of kinds
#: that do, functiongraph_api 6, names KAFKA only): nobody has checked yet that the address can be reached. What starts
#: disabled can be enabled, so it can be disabled again, though the list of those that may be names KAFKA only, too.
open_plugin = Plugin(
    kinds=("OPENSOURCEKAFKA",),
    service=KafkaSettings,
    options=OpenKafkaOptions,
    trigger=KafkaTrigger,
    rules=TriggerRules(vendor=True, starts_disabled=True, unique=("kafka_connect_address", "topic_ids")),
)
