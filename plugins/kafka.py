"""Kafka, the vendor's or anyone's: records of topics that call a function in batches."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField, Plugin, TriggerRules
from plugins.fields import Secret, Text, UpTo1000

Topics = Annotated[tuple[Text, ...], Meta(min_length=1)]
Address = Annotated[str, Meta(max_length=1024)]  #: ``host:port``, several with commas


class KafkaOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    topic_ids: Topics
    batch_size: UpTo1000
    kafka_user: Annotated[str, Meta(max_length=255)] = ""
    kafka_password: Secret = ""
    kafka_connect_address: Address = ""
    kafka_ssl_enable: bool = False

    def __post_init__(self) -> None:
        _check_login(self.kafka_ssl_enable, self.kafka_user, self.kafka_password)


class OpenKafkaOptions(Struct, frozen=True, kw_only=True):
    kafka_connect_address: Annotated[str, Meta(min_length=1, max_length=1024)]
    topic_ids: Topics
    batch_size: UpTo1000
    kafka_user: Annotated[str, Meta(max_length=255)] = ""
    kafka_password: Secret = ""
    kafka_ssl_enable: bool = False

    def __post_init__(self) -> None:
        _check_login(self.kafka_ssl_enable, self.kafka_user, self.kafka_password)


def _check_login(secured: bool, user: str, password: str) -> None:
    if secured and not user:
        raise InvalidField("kafka_user", user, "kafka_ssl_enable needs a user and a password")
    if (secured or user) and not password:
        raise InvalidField("kafka_password", "", "a user needs a password")


plugin = Plugin(
    kinds=("KAFKA",),
    options=KafkaOptions,
    rules=TriggerRules(vendor=True, starts_disabled=True, pulls=True, unique=("instance_id", "topic_ids")),
)
#: Starts disabled like the vendor's own (spec triggers_runtime, 1.8: "both made DISABLED"; the API's list of kinds
#: that do, functiongraph_api 6, names KAFKA only): nobody has checked yet that the address can be reached. What starts
#: disabled can be enabled, so it can be disabled again, though the list of those that may be names KAFKA only, too.
open_plugin = Plugin(
    kinds=("OPENSOURCEKAFKA",),
    options=OpenKafkaOptions,
    rules=TriggerRules(vendor=True, starts_disabled=True, unique=("kafka_connect_address", "topic_ids")),
)
