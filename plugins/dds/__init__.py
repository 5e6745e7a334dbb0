"""Plugin for the document databases DDS and GeminiDB. Changes of a collection invoke a function in batches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import anyio.to_thread
from anyio.abc import TaskStatus
from msgspec.structs import replace

from engine import Plugin, SettingsError, TriggerContext, TriggerDisplay, TriggerRules
from plugins._shared.fields import egress_to, used_instance
from plugins.dds.options import USER, DdsOptions, DdsSettings, check_client

TOKEN = '{"_data": "8265E1794800000001"}'
DOCUMENT = '{"_id": {"$oid": "65e17948a1b2c3d4e5f60718"}, "order": 7, "state": "paid"}'


class DdsTrigger:
    """Source of DDS and GAUSSMONGO: a collection's change stream, read from the trigger's cursor on."""

    def __init__(self, options: DdsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        check_client()
        # Imported late, in a thread: the client takes half a second to import.
        module = await anyio.to_thread.run_sync(import_module, "plugins.dds.source")
        with egress_to(context.plugin, self._options):
            await module.Reader(self._options, context).run(task_status)


def example(kind: str) -> bytes:
    """Return the event of an inserted document, as an example.

    The source does not make it, because the client of the database may not be installed.
    """
    source = "dds" if kind == "DDS" else "gauss_mongo"
    change = {
        "size_bytes": "173",
        "token": TOKEN,
        "full_document": DOCUMENT,
        "ns": '{"db": "shop", "coll": "orders"}',
    }
    record = {
        "event_source": source,
        "event_name": "insert",
        "region": "local-1",
        "event_version": "1.0",
        source: change,
        "event_source_id": "9a0364b9-e99b-480d-d25e-1f0284c85555",
    }
    event: dict[str, Any] = {"records": [record], **({} if kind == "DDS" else {"vernier": TOKEN})}
    return json.dumps(event).encode()


def reply_fields(options: DdsOptions, trigger_id: str, urn: str, settings: DdsSettings) -> Mapping[str, Any]:
    """Return the fields that the vendor's API adds to replies about a trigger.

    The database's mode is left out, because no setting contains it.
    """
    try:
        server = settings.server(options, "")
    except SettingsError:
        return {"db_user": USER}
    return {"db_user": server.user, "instance_addrs": server.addresses}


plugin = Plugin(
    kinds=("DDS",),
    service=DdsSettings,
    options=DdsOptions,
    trigger=DdsTrigger,
    uses=used_instance,
    rules=TriggerRules(
        vendor=True,
        starts_disabled=True,
        limited=True,
        unique=("instance_id", "db_name", "collection_name"),
        reply_fields=reply_fields,
    ),
    example=example,
    display=TriggerDisplay(
        about={
            "DDS": "Changes of a collection in a document database.",
            "GAUSSMONGO": "Changes of a collection in GaussDB (for Mongo).",
        },
        subject=lambda options: f"{options.collection} on {options.instance_id}",
        module="pymongo",
        extra="dds",
    ),
)
#: FunctionGraph's API lists this kind neither among those that start disabled nor among those that may be disabled.
#: Its triggers therefore start active, and can only be deleted.
gauss_plugin = replace(
    plugin, kinds=("GAUSSMONGO",), rules=replace(plugin.rules, starts_disabled=False, may_disable=False)
)
