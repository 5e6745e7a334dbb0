"""Options of Kafka triggers, for managed and open clusters (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, ValidationError, convert

from engine import InvalidField
from plugins._shared.batches import Format
from plugins._shared.fields import Secret, Text, UpTo1000
from plugins._shared.ordering import Ordering
from plugins._shared.tls import PEM

ADDRESS = Meta(
    title="Bootstrap servers", examples=["127.0.0.1:9092"], extra={"help": "host:port, several separated by commas."}
)
InstanceId = Annotated[
    Text, Meta(examples=["main"], extra={"help": "Id of the cluster, or its name in the engine's settings."})
]
Mechanism = Annotated[
    Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    Meta(title="SASL mechanism", extra={"labels": {"": "As the settings say"}}),
]
MessageFormat = Annotated[
    Format, Meta(extra={"labels": {"text": "Values as text", "record": "Records with key, headers and offset"}})
]
StartingPosition = Annotated[
    str, Meta(max_length=64, examples=["latest"], extra={"help": "Of new partitions: earliest, latest, or a time."})
]
Pem = Meta(max_length=1 << 16, extra={"help": "PEM text; needs TLS."})


class _Options(Struct, frozen=True, kw_only=True):
    topic_ids: Annotated[tuple[Text, ...], Meta(min_length=1, title="Topics", examples=["orders"])]
    batch_size: Annotated[UpTo1000, Meta(extra={"help": "Most records of one event.", "initial": 100})]
    kafka_user: Annotated[str, Meta(max_length=255, title="User")] = ""
    kafka_password: Annotated[Secret, Meta(title="Password")] = ""
    kafka_ssl_enable: Annotated[bool, Meta(title="TLS", extra={"help": "Connect over TLS."})] = False
    # The remaining options are functiond's own.
    kafka_mechanism: Mechanism = ""
    kafka_ca: Annotated[str, Pem, Meta(title="Trusted certificates")] = ""
    kafka_cert: Annotated[str, Pem, Meta(title="Client certificate")] = ""
    kafka_key: Annotated[str, Pem, Meta(title="Private key", extra={"secret": True})] = ""
    ordering: Ordering = ""
    message_format: MessageFormat = "text"
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    starting_position: StartingPosition = ""

    def __post_init__(self) -> None:
        if self.kafka_ssl_enable and not (self.kafka_user or self.kafka_ca or self.kafka_cert):
            raise InvalidField("kafka_user", "", "kafka_ssl_enable needs a user, kafka_ca or kafka_cert")
        if self.kafka_user and not self.kafka_password:
            raise InvalidField("kafka_password", "", "a user needs a password")
        if bool(self.kafka_cert) != bool(self.kafka_key):
            raise InvalidField("kafka_key", "", "kafka_cert and kafka_key need each other")
        for name in ("kafka_ca", "kafka_cert", "kafka_key"):
            text = getattr(self, name)
            if text and not (self.kafka_ssl_enable and text.lstrip().startswith(PEM)):
                raise InvalidField(name, "******", f"needs kafka_ssl_enable, and PEM text that begins with {PEM}")
        if self.starting_position not in ("", "earliest", "latest"):
            milliseconds("starting_position", self.starting_position)


class KafkaOptions(_Options, frozen=True, kw_only=True):
    instance_id: InstanceId
    kafka_connect_address: Annotated[str, Meta(max_length=1024), ADDRESS] = ""

    @property
    def cluster(self) -> str:
        """Name of the cluster in the settings and in cursors."""
        return self.instance_id


class OpenKafkaOptions(_Options, frozen=True, kw_only=True):
    kafka_connect_address: Annotated[str, Meta(min_length=1, max_length=1024), ADDRESS]

    @property
    def cluster(self) -> str:
        return self.kafka_connect_address

    @property
    def instance_id(self) -> str:
        """Instance id in events: empty, since an open cluster has none."""
        return ""


def milliseconds(field: str, text: str) -> int:
    """Return a time in milliseconds since the epoch. Raises InvalidField unless it is a time with a zone."""
    try:
        return int(convert(text, Annotated[datetime, Meta(tz=True)]).timestamp() * 1000)
    except ValidationError:
        problem = "must be earliest, latest, or a time such as 2026-01-31T00:00:00Z"
        raise InvalidField(field, text, problem) from None


def subject(options: KafkaOptions | OpenKafkaOptions) -> str:
    return f"{', '.join(options.topic_ids)} on {options.cluster}"
