"""Settings of the Kafka plugin: addresses and logins of clusters, and limits of batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import EVENT_LIMIT, SettingsError
from plugins._shared.tls import client_context
from plugins.kafka.causes import listen
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions

PACE = 0.1  #: seconds between two requests of a client for metadata


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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

    @property
    def protocol(self) -> str:
        return ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")


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


def connection(instance: Instance) -> dict[str, Any]:
    """Return arguments for the client library's consumers and producers.

    Raises OSError if a TLS file cannot be read.
    """
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


def pace(client: Any) -> None:
    """Let a client wait ``PACE`` between requests for metadata. While a leader is missing it would not wait at all."""

    class Paced(type(client)):  # type: ignore[misc]
        _last = 0.0

        async def _metadata_update(self, *arguments: Any) -> Any:
            await anyio.sleep(max(0.0, self._last + PACE - anyio.current_time()))
            self._last = anyio.current_time()
            return await super()._metadata_update(*arguments)

    client.__class__ = Paced


def library() -> Any:
    """Return the module of the client library. Raises SettingsError if it is not installed."""
    try:
        import aiokafka
    except ImportError:
        raise SettingsError("Kafka needs the extra kafka: run pip install '.[kafka]' in the clone") from None
    listen("aiokafka")
    return aiokafka
