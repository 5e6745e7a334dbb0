"""Trigger together with its function and plugin. The stored data is checked and converted to the plugin's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import InvalidField, InvalidTrigger
from engine.model import Function, Mode
from engine.model.text import MASK
from engine.model.urn import parse_urn
from engine.protocols import CursorMove, Plugin, StoredResource
from engine.resources import trigger_rules as rules

KIND = "trigger"
LONGEST_NAME = 120  #: characters of a name in lists


class StoredTrigger(Struct, frozen=True, kw_only=True):
    """Trigger in the form in which it is stored on disk."""

    id: str
    kind: str  #: trigger type code, in its plugin's spelling
    qualifier: str  #: ``latest``, a version, or ``!alias``
    active: bool
    event_type_code: str = ""
    data: dict[str, Any]  #: ``event_data`` without unknown keys, secrets unmasked
    generation: int = 1  #: number that each change increases; a source of an earlier generation cannot move cursors
    enabled: int = 1  #: generation since which the trigger is active; if it is disabled, of the time before
    created_at: float = 0.0
    claimed_at: float = 0.0  #: last change of ``TriggerRules.claimed``; 0: none since the creation
    modified_at: float = 0.0


class BoundTrigger(Struct, frozen=True, kw_only=True):
    function_id: int
    function: str  #: URN with the qualifier
    project: str
    plugin: Plugin  #: placeholder without options if no plugin has the kind any more
    options: Any  #: the plugin's options; None: the stored data cannot be read any more
    mode: Mode
    mode_fixed: bool = True  #: the mode cannot be changed
    stored: StoredTrigger
    given: dict[str, Any]  #: stored data for clients, with secrets masked
    shown: dict[str, Any]  #: ``given``, and the fields that the vendor's API adds to it
    problem: str = ""  #: reason why the stored data cannot be read, or could not be stored today

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
    def path(self) -> str:
        """Path to which senders of events send them; empty if the kind has none."""
        return f"/triggers/{self.plugin.table}/{self.id}" if self.plugin.rules.has_path else ""

    @property
    def runnable(self) -> bool:
        """True if the trigger is active, its stored data can be read, and its kind has a source."""
        return self.stored.active and self.options is not None and self.plugin.trigger is not None

    def move(self, before: Mapping[str, bytes], positions: Mapping[str, bytes]) -> CursorMove:
        """Return the move of the cursors from ``before`` to ``positions``."""
        return CursorMove(
            trigger_id=self.id,
            owner=self.resource().owner,
            generation=self.stored.generation,
            expected={name: before.get(name) for name in positions},
            positions=positions,
        )

    def resource(self, body: bytes = b"") -> StoredResource:
        return StoredResource(kind=KIND, owner=f"function:{self.function_id}", id=self.id, body=body)


def bind(
    stored: StoredTrigger,
    plugin: Plugin,
    function: Function,
    region: str,
    *,
    free: bool,
    service: Any = None,
) -> BoundTrigger:
    """Check the data of a stored trigger, and return the trigger with its function and plugin options.

    Keys of the data that the options do not have are rejected, or left out by the rules of ``check_keys``. ``free``
    allows invocation modes outside the plugin's ``modes``. ``service`` contains the settings of the plugin's service.
    Raises InvalidTrigger if the data is invalid; InvocationModeFixed if it names a mode that is not allowed.
    """
    kind, data = stored.kind, stored.data
    rules.check_keys(kind, plugin, rules.unknown_keys(plugin, data), lenient=plugin.rules.vendor)
    options = rules.read_options(kind, plugin, data)
    mode = rules.check_mode(kind, plugin, data, options, free=free)
    _check_backend(kind, data, function, region)
    stored = msgspec.structs.replace(stored, data=rules.stored_form(options, data))
    trigger = _bound(stored, plugin, function, region, options, mode, service)
    return msgspec.structs.replace(trigger, mode_fixed=plugin.fixed_mode and not free)


def bind_unreadable(
    stored: StoredTrigger, plugin: Plugin | None, function: Function, region: str, problem: str
) -> BoundTrigger:
    """Return a trigger without options, because its plugin is missing or rejects the stored data.

    Clients can list and delete such a trigger, but it has no source. ``problem`` is the reason that clients get.
    """
    bound = _bound(stored, plugin, function, region, None, Mode.ASYNC)
    return msgspec.structs.replace(bound, problem=problem)


def name_of(trigger: BoundTrigger) -> str:
    """Return the name in a trigger's options, else the main part of its subject, else its kind."""
    data = trigger.given if trigger.options is not None else {}
    subject = subject_of(trigger)
    main = subject.rpartition(":")[2] if subject.startswith("urn:") else subject.partition(": ")[0]
    text = str(data.get("name") or data.get("trigger_name") or main or trigger.kind)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def subject_of(trigger: BoundTrigger) -> str:
    """Return the schedule, address or topic of a trigger in one line; empty if its kind has none."""
    describe = trigger.plugin.display.subject
    return describe(trigger.options) if describe is not None and trigger.options is not None else ""


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
    # Only the plugin defines which values are secret, so without one every value is masked.
    hidden: rules.Data = dict.fromkeys(stored.data, MASK)
    given = rules.masked(plugin, stored.data) if plugin else hidden
    shown = given
    if plugin and plugin.rules.reply_fields and options is not None:
        shown = {**given, **plugin.rules.reply_fields(options, stored.id, urn, service)}
    return BoundTrigger(
        function_id=function.function_id,
        function=urn,
        project=function.project,
        plugin=plugin or Plugin(kinds=(stored.kind,)),
        options=options,
        mode=mode,
        stored=stored,
        given=given,
        shown=shown,
    )


def _check_backend(kind: str, data: dict[str, Any], function: Function, region: str) -> None:
    """Raise InvalidTrigger unless the backend of an API, if given, is the trigger's own function."""
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
