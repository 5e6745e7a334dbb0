"""Options of a trigger on a document database (FunctionGraph API: CreateFunctionTrigger)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import InvalidField
from plugins._shared.fields import Address, NeededSecret, Text, UpTo10000

OWN_DATABASES = ("admin", "local", "config")  #: databases of the server itself


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


def subject(options: DdsOptions) -> str:
    return f"{options.collection} on {options.instance_id}"
