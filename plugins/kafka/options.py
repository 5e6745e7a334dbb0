"""Options of Kafka triggers (FunctionGraph API: CreateFunctionTrigger), and settings of clusters, managed and open."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import replace

from engine import EVENT_LIMIT, InvalidField, SettingsError
from plugins._shared.batches import Format, Ordering
from plugins._shared.connections import PEM
from plugins._shared.fields import Secret, Shared, Text, UpTo1000

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


class Instance(Shared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address and login of a cluster. Without ``address``, triggers use the address and login of their options."""

    address: str = ""  #: ``host:port``, several separated by commas
    user: str = ""
    password: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"  #: SASL mechanism, if ``user`` is set
    tls: bool = False
    ca_file: str = ""  #: trusted certificates; empty: those that the machine trusts
    cert_file: str = ""  #: certificate of the client; needs ``tls``
    key_file: str = ""  #: private key of the client

    def __post_init__(self) -> None:
        if self.cert_file and not self.tls:
            raise ValueError("cert_file has no effect without tls = true")


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of KAFKA. OPENSOURCEKAFKA has a separate table with the same fields."""

    #: Clusters by instance id; for OPENSOURCEKAFKA by the address that its triggers name.
    instances: dict[str, Instance] = field(default_factory=dict)
    #: Start of a topic that the trigger has never read: at new records only, or at the oldest record.
    start: Literal["latest", "earliest"] = "latest"
    #: Engines with the same group share the partitions of a function's topics, by Kafka's protocol. Empty: each trigger
    #: reads all partitions, and its group only shows its committed offsets.
    group: Annotated[str, Meta(max_length=100)] = ""
    session_timeout: Annotated[float, Meta(ge=1, le=1800)] = 10.0  #: seconds; then a silent engine loses its partitions
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more records
    #: Bytes of one event. A larger record is an event alone.
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = EVENT_LIMIT
    check_every: Annotated[float, Meta(gt=0, le=300)] = 5.0  #: seconds without records until the cluster is checked

    def cluster(self, options: KafkaOptions | OpenKafkaOptions) -> Instance:
        """Return address, login and TLS of a trigger's cluster.

        A login of the options replaces that of the settings. Raises SettingsError if neither the settings nor the
        options contain an address.
        """
        configured = self.instances.get(options.cluster, Instance())
        # The address of the options has no effect then: they must not send the settings' password elsewhere.
        if configured.address and not options.kafka_user and not options.kafka_cert:
            return configured
        if not (address := configured.address or options.kafka_connect_address):
            raise SettingsError(f"set plugins.kafka.instances.{options.cluster}.address: a trigger reads from it")
        return replace(
            configured,
            address=address,
            user=options.kafka_user,
            password=options.kafka_password,
            mechanism=options.kafka_mechanism or configured.mechanism,
            tls=configured.tls or options.kafka_ssl_enable,
            ca_file=options.kafka_ca or configured.ca_file,
            cert_file=options.kafka_cert or configured.cert_file,
            key_file=options.kafka_key or configured.key_file,
        )

    def instance(self, name: str) -> Instance:
        """Return address and login of a destination's cluster.

        Raises SettingsError if the settings have no address for it.
        """
        configured = self.instances.get(name)
        if configured is None or not configured.address:
            raise SettingsError(f"set plugins.kafka.instances.{name}.address: a destination writes to it")
        return configured
