"""DDS and GeminiDB, the document databases: changes of a collection that call a function in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from engine import InvalidField, Plugin, TriggerRules
from plugins.fields import NeededSecret, Text, UpTo10000

OWN_DATABASES = ("admin", "local", "config")  #: of the server itself
USER = "rwuser"  #: fixed by the vendor


class DdsOptions(Struct, frozen=True, kw_only=True):
    instance_id: Text
    db_name: Text
    collection_name: Text
    db_password: NeededSecret
    batch_size: UpTo10000

    def __post_init__(self) -> None:
        if self.db_name in OWN_DATABASES:
            raise InvalidField("db_name", self.db_name, f"may not be one of {', '.join(OWN_DATABASES)}")


def shown(options: DdsOptions, trigger_id: str, urn: str) -> Mapping[str, Any]:
    return {"db_user": USER}


_UNIQUE = ("instance_id", "db_name", "collection_name")

plugin = Plugin(
    kinds=("DDS",),
    options=DdsOptions,
    rules=TriggerRules(vendor=True, starts_disabled=True, pulls=True, unique=_UNIQUE, shown=shown),
)
#: In neither list of the API, of kinds that start disabled and of those that may be disabled (functiongraph_api, 6):
#: so it starts active, and is deleted rather than disabled.
gauss_plugin = Plugin(
    kinds=("GAUSSMONGO",),
    options=DdsOptions,
    rules=TriggerRules(vendor=True, may_disable=False, pulls=True, unique=_UNIQUE, shown=shown),
)
