"""Options of a trigger on a document database (FunctionGraph API: CreateFunctionTrigger), and settings of databases."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import EVENT_LIMIT, InvalidField, SettingsError
from plugins._shared.fields import Address, NeededSecret, Shared, Text, UpTo10000

OWN_DATABASES = ("admin", "local", "config")  #: databases of the server itself
#: user of the vendor's databases, which triggers cannot change
USER = "rwuser"
#: ``operationType`` of changes in MongoDB's change streams
Operation = Literal["insert", "update", "replace", "delete", "drop", "rename", "dropDatabase", "invalidate"]


class DdsOptions(Struct, frozen=True, kw_only=True):
    instance_id: Annotated[
        Text, Meta(examples=["main"], extra={"help": "Id of the instance, or its name in the engine's settings."})
    ]
    db_name: Annotated[Text, Meta(title="Database", examples=["shop"])]
    collection_name: Annotated[Text, Meta(title="Collection", examples=["orders"])]
    db_password: Annotated[
        NeededSecret, Meta(title="Password", extra={"help": "Of the user in the engine's settings."})
    ]
    batch_size: Annotated[UpTo10000, Meta(extra={"help": "Most changes of one event.", "initial": 100})]
    #: the vendor has this field in replies only
    instance_addrs: Annotated[
        tuple[Address, ...],
        Meta(
            title="Addresses",
            examples=["127.0.0.1:27017"],
            extra={"help": "Of the instance, host:port. Empty: those in the engine's settings."},
        ),
    ] = ()

    def __post_init__(self) -> None:
        if self.db_name in OWN_DATABASES:
            raise InvalidField("db_name", self.db_name, f"may not be one of {', '.join(OWN_DATABASES)}")

    @property
    def collection(self) -> str:
        """Name of the collection with its database."""
        return f"{self.db_name}.{self.collection_name}"


class Instance(Shared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address and login of a replica set or sharded cluster.

    If the address is set, address and password replace those in triggers' options. An empty password does not.
    """

    address: str = ""  #: ``host:port``, several with commas
    user: str = USER  #: empty: no login
    password: str = ""  #: empty: the password of each trigger
    tls: bool = False
    ca_file: str = ""  #: trusted authorities; empty: those of the machine
    cert_file: str = ""  #: client certificate, with its key in the same file
    check_host: bool = True  #: require that the server's certificate matches its host name
    direct: bool = False  #: use only this address, not the other members of its set

    @property
    def addresses(self) -> list[str]:
        return [part.strip() for part in self.address.split(",") if part.strip()]

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments for the constructor of the client library."""
        arguments: dict[str, Any] = {"host": self.addresses, "directConnection": self.direct}
        if self.user:
            arguments |= {"username": self.user, "password": self.password}
        if self.tls:
            arguments |= {"tls": True, "tlsAllowInvalidHostnames": not self.check_host}
            arguments |= {"tlsCAFile": self.ca_file} if self.ca_file else {}
            arguments |= {"tlsCertificateKeyFile": self.cert_file} if self.cert_file else {}
        return arguments


class DdsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DDS. Triggers of GAUSSMONGO have their own table with the same fields."""

    instances: dict[str, Instance] = field(default_factory=dict)  #: keyed by instance id
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1)] = ("insert", "update", "replace", "delete")
    update_lookup: bool = True  #: updates contain the current document; otherwise only its key
    #: after the collection was removed, or changes were lost because they were read too late: continue, or stop until
    #: the trigger is changed; both report the problem
    on_lost: Literal["restart", "stop"] = "restart"
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more changes
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = (
        EVENT_LIMIT  #: bytes of one event, unless a single change has more
    )
    timeout: Annotated[float, Meta(gt=0, le=300)] = 10.0  #: seconds to find the server, and for its answers
    check_every: Annotated[float, Meta(gt=0, le=300)] = (
        30.0  #: seconds for which the server may delay an answer without changes
    )
    keep_every: Annotated[float, Meta(ge=0)] = 300.0  #: seconds between stored positions while nothing changes

    def server(self, options: DdsOptions, table: str) -> Instance:
        """Return address and login of a trigger's database.

        Raises SettingsError if neither the settings nor the options contain an address. ``table`` is the name
        of the settings table, which the error contains.
        """
        instance = self.instances.get(options.instance_id, Instance())
        if instance.address:  # a trigger's options must not send the settings' password to another host
            return instance if instance.password else replace(instance, password=options.db_password)
        if not options.instance_addrs:
            raise SettingsError(f"set plugins.{table}.instances.{options.instance_id}.address: a trigger reads there")
        return replace(instance, address=",".join(options.instance_addrs), password=options.db_password)


def check_client() -> None:
    """Raise SettingsError if the client library is not installed."""
    if find_spec("pymongo") is None:
        raise SettingsError("document databases need the extra dds: pip install '.[dds]' in the clone")
