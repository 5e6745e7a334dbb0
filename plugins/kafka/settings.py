"""Where the clusters are, how to log in there, and how records become batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import SettingsError
from plugins._shared.fields import EVENT_LIMIT
from plugins._shared.tls import client_context
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster: what is set here goes before what a trigger says of it."""

    address: str = ""  #: ``host:port``, several with commas
    user: str = ""
    password: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"  #: of the login, if there is a user
    tls: bool = False
    ca_file: str = ""  #: whom to believe; without, whom the machine believes
    cert_file: str = ""  #: of the client, with its key
    key_file: str = ""

    def __post_init__(self) -> None:
        if self.cert_file and not self.tls:
            raise ValueError("cert_file does nothing without tls = true")

    @property
    def protocol(self) -> str:
        return ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of triggers of KAFKA; those of OPENSOURCEKAFKA have a table of their own with the same fields."""

    #: By instance id; for OPENSOURCEKAFKA by the address that its triggers name.
    instances: dict[str, Instance] = field(default_factory=dict)
    #: Where a topic is begun that the trigger has never read: with what comes from now on, or with all there is.
    start: Literal["latest", "earliest"] = "latest"
    #: Engines with the same group share the partitions of a function's topics, by Kafka's protocol. Empty: each trigger
    #: takes all partitions at once, and its group only shows how far it is.
    group: Annotated[str, Meta(max_length=100)] = ""
    session_timeout: Annotated[float, Meta(ge=1, le=1800)] = 10.0  #: after which a silent engine's partitions go on
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more records
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = EVENT_LIMIT  #: of one event, unless one record has more
    check_every: Annotated[float, Meta(gt=0, le=300)] = 5.0  #: seconds of silence after which the cluster is asked

    def cluster(self, options: KafkaOptions | OpenKafkaOptions) -> Instance:
        """Where a trigger's topics are. Raises SettingsError."""
        known = self.instances.get(options.cluster)
        if known is not None and known.address:  # a row can't turn the settings' password to another host
            return known
        if not options.kafka_connect_address:
            raise SettingsError(f"set plugins.kafka.instances.{options.cluster}.address: a trigger reads there")
        return replace(
            known or Instance(),
            address=options.kafka_connect_address,
            user=options.kafka_user,
            password=options.kafka_password,
            tls=options.kafka_ssl_enable,
        )

    def instance(self, name: str) -> Instance:
        """Where a destination writes. Raises SettingsError."""
        known = self.instances.get(name)
        if known is None or not known.address:
            raise SettingsError(f"set plugins.kafka.instances.{name}.address: a destination writes there")
        return known


def connection(instance: Instance) -> dict[str, Any]:
    """Arguments of the client library's consumers and producers. Raises OSError if a file is not there."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": instance.address,
        "client_id": "functiond",
        "security_protocol": instance.protocol,
        "request_timeout_ms": 10_000,
    }
    if instance.user:
        arguments["sasl_mechanism"] = instance.mechanism
        arguments["sasl_plain_username"] = instance.user
        arguments["sasl_plain_password"] = instance.password
    if instance.tls:
        arguments["ssl_context"] = client_context(instance.ca_file, instance.cert_file, instance.key_file)
    return arguments


def library() -> Any:
    """The client. Raises SettingsError if it is not installed."""
    try:
        import aiokafka
    except ImportError:
        raise SettingsError("Kafka needs the extra kafka: pip install '.[kafka]' in the clone") from None
    return aiokafka
