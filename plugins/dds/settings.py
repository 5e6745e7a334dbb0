"""Where the databases are, how to log in there, and what is told of their changes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from engine import SettingsError
from plugins._shared.fields import EVENT_LIMIT
from plugins.dds.options import DdsOptions

#: Fixed by the vendor (spec triggers_runtime, 1.7).
USER = "rwuser"

#: What becomes of a collection and its documents (spec triggers_runtime, 3.6).
Operation = Literal["insert", "update", "replace", "delete", "drop", "rename", "dropDatabase", "invalidate"]


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica set or sharded cluster: what is set here goes before what a trigger says of it."""

    address: str = ""  #: ``host:port``, several with commas
    user: str = USER  #: empty: without a login
    password: str = ""  #: empty: that of each trigger
    tls: bool = False
    ca_file: str = ""  #: whom to believe; without, whom the machine believes
    cert_file: str = ""  #: of the client, its key in the same file
    check_host: bool = True  #: whether the server's certificate must be for the host that is asked
    direct: bool = False  #: talk to this address, whatever it says of the others of its set

    @property
    def addresses(self) -> list[str]:
        return [one.strip() for one in self.address.split(",") if one.strip()]

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments of the client library."""
        arguments: dict[str, Any] = {"host": self.addresses, "directConnection": self.direct}
        if self.user:
            arguments |= {"username": self.user, "password": self.password}
        if self.tls:
            arguments |= {"tls": True, "tlsAllowInvalidHostnames": not self.check_host}
            arguments |= {"tlsCAFile": self.ca_file} if self.ca_file else {}
            arguments |= {"tlsCertificateKeyFile": self.cert_file} if self.cert_file else {}
        return arguments


class DdsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of triggers of DDS; those of GAUSSMONGO have a table of their own with the same fields."""

    instances: dict[str, Instance] = field(default_factory=dict)  #: by instance id
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1)] = ("insert", "update", "replace", "delete")
    update_lookup: bool = True  #: an update has the document as it is when the change is read; else its key only
    #: When the collection is gone, or changes are lost because they were read too late: go on, or wait for someone to
    #: change the trigger. Either says so.
    on_lost: Literal["restart", "stop"] = "restart"
    batch_wait: Annotated[float, Meta(ge=0, le=300)] = 0.1  #: seconds that a batch waits for more changes
    batch_bytes: Annotated[int, Meta(ge=1, le=EVENT_LIMIT)] = EVENT_LIMIT  #: of one event, unless one change has more
    timeout: Annotated[float, Meta(gt=0, le=300)] = 10.0  #: seconds to find the server, and for its answers
    check_every: Annotated[float, Meta(gt=0, le=300)] = 30.0  #: seconds that the server may keep silent
    keep_every: Annotated[float, Meta(ge=0)] = 300.0  #: seconds until a place without changes is kept again

    def server(self, options: DdsOptions, table: str) -> Instance:
        """Where a trigger's collection is, with the password. Raises SettingsError."""
        known = self.instances.get(options.instance_id, Instance())
        if known.address:  # a row can't turn the settings' password to another host
            return known if known.password else replace(known, password=options.db_password)
        if not options.instance_addrs:
            raise SettingsError(f"set plugins.{table}.instances.{options.instance_id}.address: a trigger reads there")
        return replace(known, address=",".join(options.instance_addrs), password=options.db_password)


def check_client() -> None:
    """Raises SettingsError if the client is not installed."""
    if find_spec("pymongo") is None:
        raise SettingsError("document databases need the extra dds: pip install '.[dds]' in the clone")
