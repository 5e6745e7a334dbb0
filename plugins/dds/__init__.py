"""DDS and GeminiDB, the document databases: changes of a collection call a function in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine import Plugin, SettingsError, TriggerRules
from plugins.dds.options import DdsOptions
from plugins.dds.settings import USER, DdsSettings
from plugins.dds.source import DdsTrigger


def shown(options: DdsOptions, trigger_id: str, urn: str, settings: DdsSettings) -> Mapping[str, Any]:
    """What the vendor's replies add; all but the mode of the instance, which only the server knows."""
    try:
        server = settings.server(options, "")
    except SettingsError:
        return {"db_user": USER}
    return {"db_user": server.user, "instance_addrs": server.addresses}


_UNIQUE = ("instance_id", "db_name", "collection_name")

plugin = Plugin(
    kinds=("DDS",),
    service=DdsSettings,
    options=DdsOptions,
    trigger=DdsTrigger,
    rules=TriggerRules(vendor=True, starts_disabled=True, pulls=True, unique=_UNIQUE, reply_fields=shown),
)
#: In neither list of the API, of kinds that start disabled and of those that may be disabled (functiongraph_api, 6):
#: so it starts active, and is deleted rather than disabled.
gauss_plugin = Plugin(
    kinds=("GAUSSMONGO",),
    service=DdsSettings,
    options=DdsOptions,
    trigger=DdsTrigger,
    rules=TriggerRules(vendor=True, may_disable=False, pulls=True, unique=_UNIQUE, reply_fields=shown),
)
