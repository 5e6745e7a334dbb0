"""OBS, the object store: created and removed objects call functions, and outcomes are stored as objects."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.obs.destination import ObsDestination, ObsParam
from plugins.obs.folder import stores_hops
from plugins.obs.links import code_links, used_bucket
from plugins.obs.options import ObsOptions, ObsSettings, conflicts, subject
from plugins.obs.records import example
from plugins.obs.service import ObsService
from plugins.obs.source import ObsTrigger

plugin = Plugin(
    kinds=("OBS",),
    service=ObsSettings,
    serve=ObsService,
    options=ObsOptions,
    trigger=ObsTrigger,
    param=ObsParam,
    destination=ObsDestination,
    uses=used_bucket,
    loops=lambda settings, options, param: (
        bool(settings.folder) and options.bucket == param.bucket and not stores_hops(settings.folder)
    ),
    code_links=code_links,
    example=example,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        start_before_stop=True,
        conflicts=conflicts,
        reply_fields=lambda options, trigger_id, urn, settings: {"name": options.name or trigger_id},
    ),
    display=TriggerDisplay(
        about={"OBS": "Objects of a bucket that are created or removed."},
        subject=subject,
        module="aiobotocore",
        extra="obs",
    ),
)
