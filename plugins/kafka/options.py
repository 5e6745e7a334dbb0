"""Options of Kafka triggers, for managed and open clusters (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField
from plugins._shared.fields import Secret, Text, UpTo1000
from plugins._shared.ordering import Ordering

ADDRESS = Meta(
    title="Bootstrap servers", examples=["127.0.0.1:9092"], extra={"help": "host:port, several separated by commas."}
)
Topics = Annotated[tuple[Text, ...], Meta(min_length=1, title="Topics", examples=["orders"])]
Address = Annotated[str, Meta(max_length=1024), ADDRESS]
BatchSize = Annotated[UpTo1000, Meta(extra={"help": "Most records of one event.", "initial": 100})]
User = Annotated[str, Meta(max_length=255, title="User")]
Password = Annotated[Secret, Meta(title="Password")]
Tls = Annotated[bool, Meta(title="TLS", extra={"help": "Connect over TLS, with user and password."})]


class KafkaOptions(Struct, frozen=True, kw_only=True):
    instance_id: Annotated[
        Text, Meta(examples=["main"], extra={"help": "Id of the cluster, or its name in the engine's settings."})
    ]
    topic_ids: Topics
    batch_size: BatchSize
    kafka_user: User = ""
    kafka_password: Password = ""
    kafka_connect_address: Address = ""
    kafka_ssl_enable: Tls = False
    ordering: Ordering = ""  #: functiond only

    def __post_init__(self) -> None:
        _check_login(self.kafka_ssl_enable, self.kafka_user, self.kafka_password)

    @property
    def cluster(self) -> str:
        """Name of the cluster in the settings and in cursors."""
        return self.instance_id


class OpenKafkaOptions(Struct, frozen=True, kw_only=True):
    kafka_connect_address: Annotated[str, Meta(min_length=1, max_length=1024), ADDRESS]
    topic_ids: Topics
    batch_size: BatchSize
    kafka_user: User = ""
    kafka_password: Password = ""
    kafka_ssl_enable: Tls = False
    ordering: Ordering = ""  #: functiond only

    def __post_init__(self) -> None:
        _check_login(self.kafka_ssl_enable, self.kafka_user, self.kafka_password)

    @property
    def cluster(self) -> str:
        return self.kafka_connect_address

    @property
    def instance_id(self) -> str:
        """Instance id in events: empty, since an open cluster has none."""
        return ""


def _check_login(secured: bool, user: str, password: str) -> None:
    if secured and not user:
        raise InvalidField("kafka_user", user, "kafka_ssl_enable needs a user and a password")
    if (secured or user) and not password:
        raise InvalidField("kafka_password", "", "a user needs a password")


def subject(options: KafkaOptions | OpenKafkaOptions) -> str:
    return f"{', '.join(options.topic_ids)} on {options.cluster}"
