"""Kafka plugin. Batches of records invoke a function, and outcomes are sent as records, on managed or open clusters."""

from __future__ import annotations

from msgspec.structs import replace

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins._shared.batches import example_of
from plugins._shared.fields import used_instance
from plugins.kafka.destination import KafkaDestination, KafkaParam, Producers
from plugins.kafka.offsets import seek
from plugins.kafka.options import KafkaOptions, KafkaSettings, OpenKafkaOptions
from plugins.kafka.source import KafkaTrigger

plugin = Plugin(
    kinds=("KAFKA",),
    service=KafkaSettings,
    serve=Producers,
    options=KafkaOptions,
    trigger=KafkaTrigger,
    seek=seek,
    param=KafkaParam,
    destination=KafkaDestination,
    uses=used_instance,
    rules=TriggerRules(
        vendor=True, starts_disabled=True, limited=True, longest_delay=4.0, unique=("instance_id", "topic_ids")
    ),
    example=lambda kind: example_of("KAFKA", "9a0364b9-e99b-480d-d25e-1f0284c85555" if kind == "KAFKA" else ""),
    display=TriggerDisplay(
        about={
            "KAFKA": "Records of topics of a Kafka cluster in the engine's settings.",
            "OPENSOURCEKAFKA": "Records of topics of a Kafka cluster at an address.",
        },
        subject=lambda options: f"{', '.join(options.topic_ids)} on {options.cluster}",
        module="aiokafka",
        extra="kafka",
    ),
)
#: Starts disabled like KAFKA, because nothing has checked yet that the address can be reached. FunctionGraph's
#: documentation of both kinds requires it, although the API's list of kinds that start disabled names KAFKA only. A
#: trigger that can be enabled can also be disabled, although the API's list of kinds for that names KAFKA only, too.
open_plugin = replace(
    plugin,
    kinds=("OPENSOURCEKAFKA",),
    serve=None,
    options=OpenKafkaOptions,
    param=None,
    destination=None,
    rules=replace(plugin.rules, unique=("kafka_connect_address", "topic_ids")),
)
