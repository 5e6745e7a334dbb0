"""What a trigger on a document database is made with (spec triggers_runtime, 1.7)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField
from plugins.fields import NeededSecret, Text, UpTo10000

OWN_DATABASES = ("admin", "local", "config")  #: of the server itself

#: ``host:port``, and nothing more: the client library would take whole URLs, whose options may name files.
Address = Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:\[\]-]+$")]


class DdsOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    db_name: Text
    collection_name: Text
    db_password: NeededSecret
    batch_size: UpTo10000
    #: Where the vendor's replies show the instance's addresses, a trigger may be told them, too.
    instance_addrs: tuple[Address, ...] = ()

    def __post_init__(self) -> None:
        if self.db_name in OWN_DATABASES:
            raise InvalidField("db_name", self.db_name, f"may not be one of {', '.join(OWN_DATABASES)}")

    @property
    def collection(self) -> str:
        """With its database."""
        return f"{self.db_name}.{self.collection_name}"
