"""What a trigger on Kafka is made with, the vendor's managed one or anyone's (spec triggers_runtime, 1.8)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField
from plugins._shared.fields import Secret, Text, UpTo1000

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

    @property
    def cluster(self) -> str:
        """Its name among the settings' instances, and in cursors."""
        return self.instance_id


class OpenKafkaOptions(Struct, frozen=True, kw_only=True):
    kafka_connect_address: Annotated[str, Meta(min_length=1, max_length=1024)]
    topic_ids: Topics
    batch_size: UpTo1000
    kafka_user: Annotated[str, Meta(max_length=255)] = ""
    kafka_password: Secret = ""
    kafka_ssl_enable: bool = False

    def __post_init__(self) -> None:
        _check_login(self.kafka_ssl_enable, self.kafka_user, self.kafka_password)

    @property
    def cluster(self) -> str:
        return self.kafka_connect_address

    @property
    def instance_id(self) -> str:
        """What events say: an open cluster has no id."""
        return ""


def _check_login(secured: bool, user: str, password: str) -> None:
    if secured and not user:
        raise InvalidField("kafka_user", user, "kafka_ssl_enable needs a user and a password")
    if (secured or user) and not password:
        raise InvalidField("kafka_password", "", "a user needs a password")
