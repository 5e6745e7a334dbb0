"""A trigger and the function that it calls, read from what a client asked for or from what lies on disk."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import InvalidField, InvalidTrigger
from engine.model import Function, Mode
from engine.model.text import MASK
from engine.model.urn import parse_urn
from engine.protocols import Plugin, StoredResource
from engine.resources import trigger_rules as rules

KIND = "trigger"


class StoredTrigger(Struct, frozen=True, kw_only=True):
    """A trigger as it lies on disk."""

    id: str
    kind: str  #: trigger type code, as its plugin writes it
    qualifier: str  #: ``latest``, a version, or ``!alias``
    active: bool
    event_type_code: str = ""
    data: dict[str, Any]  #: its ``event_data`` without unknown keys, secrets as they were given
    generation: int = 1  #: grows with every change: what a source remembers of an earlier one is void
    created_at: float = 0.0
    modified_at: float = 0.0


class BoundTrigger(Struct, frozen=True, kw_only=True):
    function_id: int
    function: str  #: URN, with the qualifier
    project: str
    plugin: Plugin  #: a bare one if nobody knows the kind any more
    options: Any  #: read by the plugin; None if it cannot read them any more
    mode: Mode
    stored: StoredTrigger
    shown: dict[str, Any]  #: the data as clients see it: without secrets, and with what the kind adds
    problem: str = ""  #: why its data cannot be read any more

    @property
    def id(self) -> str:
        return self.stored.id

    @property
    def kind(self) -> str:
        return self.stored.kind

    @property
    def qualifier(self) -> str:
        return self.stored.qualifier

    @property
    def runnable(self) -> bool:
        """Whether there is a source to run for it now."""
        return self.stored.active and self.options is not None and self.plugin.trigger is not None

    def resource(self, body: bytes = b"") -> StoredResource:
        return StoredResource(kind=KIND, owner=f"function:{self.function_id}", id=self.id, body=body)


def bind(
    stored: StoredTrigger, plugin: Plugin, function: Function, region: str, *, free: bool, service: Any = None
) -> BoundTrigger:
    """Check the data of ``stored``, and keep what the plugin knows of it. Raises InvalidTrigger.

    ``service`` are the settings of the plugin's service.
    """
    kind, data = stored.kind, stored.data
    if not plugin.rules.vendor:
        rules.check_keys(kind, plugin, rules.unknown_keys(plugin, data))
    options = rules.read_options(kind, plugin, data)
    mode = rules.check_mode(kind, plugin, data, options, free=free)
    _check_backend(kind, data, function, region)
    stored = msgspec.structs.replace(stored, data=rules.stored_form(options, data))
    return _bound(stored, plugin, function, region, options, mode, service)


def bind_unreadable(
    stored: StoredTrigger, plugin: Plugin | None, function: Function, region: str, problem: str
) -> BoundTrigger:
    """A trigger whose plugin is gone or takes its data no more: it is shown, can be deleted, and does nothing."""
    bound = _bound(stored, plugin, function, region, None, Mode.ASYNC)
    return msgspec.structs.replace(bound, problem=problem)


def _bound(
    stored: StoredTrigger,
    plugin: Plugin | None,
    function: Function,
    region: str,
    options: Any,
    mode: Mode,
    service: Any = None,
) -> BoundTrigger:
    urn = str(msgspec.structs.replace(function.urn(region), qualifier=stored.qualifier))
    # Without a plugin nobody knows which of the values are secret.
    hidden: rules.Data = dict.fromkeys(stored.data, MASK)
    shown = rules.masked(plugin, stored.data) if plugin else hidden
    if plugin and plugin.rules.reply_fields and options is not None:
        shown |= plugin.rules.reply_fields(options, stored.id, urn, service)
    if plugin and plugin.rules.address and options is not None:
        shown |= {"invoke_url": plugin.rules.address(stored.kind, options, service)}
    return BoundTrigger(
        function_id=function.function_id,
        function=urn,
        project=function.project,
        plugin=plugin or Plugin(kinds=(stored.kind,)),
        options=options,
        mode=mode,
        stored=stored,
        shown=shown,
    )


def _check_backend(kind: str, data: dict[str, Any], function: Function, region: str) -> None:
    """An API's backend is the function that the trigger is made for."""
    backend = data.get("func_info")
    text = backend.get("function_urn") if isinstance(backend, dict) else None
    if not text or not isinstance(text, str):
        return
    field = f"{rules.EVENT_DATA}.func_info.function_urn"
    try:
        urn = parse_urn(text, region=region, project=function.project)
    except InvalidField as error:
        raise InvalidTrigger(kind, field, text, error.allowed) from None
    if (urn.project, urn.package, urn.name) != (function.project, function.package, function.name):
        raise InvalidTrigger(kind, field, text, f"must be the trigger's own function {function.urn(region).function}")
