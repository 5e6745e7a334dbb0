"""Options of a trigger on a document database (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from msgspec import Struct

from engine import InvalidField
from plugins._shared.fields import Address, NeededSecret, Text, UpTo10000

OWN_DATABASES = ("admin", "local", "config")  #: databases of the server itself


class DdsOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    db_name: Text
    collection_name: Text
    db_password: NeededSecret
    batch_size: UpTo10000
    #: addresses of the instance; the vendor has this field in replies only
    instance_addrs: tuple[Address, ...] = ()

    def __post_init__(self) -> None:
        if self.db_name in OWN_DATABASES:
            raise InvalidField("db_name", self.db_name, f"may not be one of {', '.join(OWN_DATABASES)}")

    @property
    def collection(self) -> str:
        """Name of the collection with its database."""
        return f"{self.db_name}.{self.collection_name}"
