"""Types of fields in options and settings of several services, and the use of a service's instances by projects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

from msgspec import Meta, Struct

from engine import PluginContext

HIDDEN = Meta(extra={"hidden": True})  #: marks fields that forms leave out
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Optional = Annotated[str, Meta(max_length=255)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
#: ``host:port`` only: client libraries also accept URLs, whose options may name files
Address = Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:\[\]-]+\Z")]
#: several addresses with commas, or none
Addresses = Annotated[str, Meta(max_length=1024, pattern=r"^[A-Za-z0-9._:\[\], -]*\Z")]
Affix = Annotated[str, Meta(max_length=1024)]  #: beginning or end of an object's key
UpTo1000 = Annotated[int, Meta(ge=1, le=1_000)]
UpTo10000 = Annotated[int, Meta(ge=1, le=10_000)]
#: stored, and never returned by the API
Secret = Annotated[str, Meta(max_length=1024, extra={"secret": True})]
NeededSecret = Annotated[str, Meta(min_length=1, max_length=1024, extra={"secret": True})]


class Shared(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: projects that may use it, ``*`` for all; empty: all, but none while credentials name several projects
    projects: tuple[str, ...] = ()


def used_instance(settings: Any, given: Any) -> Mapping[str, Collection[str]]:
    """Return the projects of the instance that a trigger or destination names, if the settings have it."""
    name = getattr(given, "cluster", given.instance_id)
    return {f"instances.{name}": settings.instances[name].projects} if name in settings.instances else {}


def egress_to(context: PluginContext, options: Any) -> AbstractContextManager[None]:
    """Limit the connections of a trigger's block, unless the settings have the address of its instance."""
    instance = context.settings.instances.get(getattr(options, "cluster", options.instance_id))
    return nullcontext() if instance is not None and instance.address else context.limited_egress()
