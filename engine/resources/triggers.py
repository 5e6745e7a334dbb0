"""Stored triggers of all functions, in memory and on disk.

Reads use memory and never wait. A change is checked and stored before it is visible to reads. Changes hold the function
catalog's lock, so that no trigger is added to a version that is being deleted. The signal ``changed`` lets sources
start and stop. When a version, alias or function is deleted, its triggers are deleted too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from engine.config.plugin_registry import Registry
from engine.errors import (
    FunctiondError,
    InvalidField,
    InvalidTrigger,
    NotFound,
    NoTriggerType,
    TooManyTriggers,
    TriggerClash,
    TriggerExists,
    UnknownTrigger,
    UnknownTriggerType,
)
from engine.functions.catalog import Catalog
from engine.logs.target import status_log_target, status_log_target_of
from engine.model import DestinationSpec, Function
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.model.text import without_nulls
from engine.model.urn import LATEST, FunctionUrn
from engine.protocols import Plugin, ResourceStore, StoredResource
from engine.protocols.catalog import decode_resource
from engine.resources import trigger_rules as rules
from engine.resources.bound_trigger import KIND, BoundTrigger, StoredTrigger, bind, bind_unreadable, subject_of

log = structlog.get_logger("functiond")

LOOP = "nothing would end the loop of a trigger and a destination of this function; take another stream or topic"


class TriggerDraft(Struct, frozen=True, kw_only=True):
    """Request for a new trigger."""

    kind: str
    data: dict[str, Any]
    status: str = ""  #: ACTIVE, DISABLED, or empty: the kind's default
    event_type_code: str = ""


class Triggers:
    """Triggers of all functions. Call ``load`` once, after loading the function catalog and the aliases.

    ``free`` contains the kinds that may use invocation modes outside their plugin's ``modes``.
    ``changed(trigger_id, trigger)`` announces each change of a trigger; the trigger is None if it was deleted.
    """

    def __init__(
        self,
        store: ResourceStore,
        catalog: Catalog,
        registry: Registry,
        clock: Clock,
        *,
        region: str = "",
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._store, self._catalog, self._registry, self._clock = store, catalog, registry, clock
        self.region, self._free = region, free
        self.changed: Signal[[str, BoundTrigger | None]] = Signal()
        self._by_function: dict[int, dict[str, BoundTrigger]] = {}

    async def load(self) -> None:
        for row in await self._store.load(KIND):
            function = self._catalog.resolve(int(row.owner.removeprefix("function:")), LATEST)
            if function is not None:
                self._add(self._restore(decode_resource(row, StoredTrigger), function))
        for trigger in self.all():
            _warn_without_source(trigger)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def kinds(self) -> Sequence[str]:
        return self._registry.triggers

    def example(self, kind: str) -> bytes | None:
        """Return the JSON of an event as triggers of a kind make it; None if its plugin has no example."""
        plugin = self._registry.trigger(kind)
        return plugin.example(kind.upper()) if plugin is not None and plugin.example is not None else None

    def plugin(self, kind: str) -> Plugin | None:
        """Return the plugin that provides triggers of this kind; None if no plugin does."""
        return self._registry.trigger(kind)

    def is_mode_fixed(self, kind: str) -> bool:
        """Return whether the invocation mode of triggers of this kind cannot be changed."""
        plugin = self._registry.trigger(kind)
        return plugin is None or (plugin.fixed_mode and kind not in self._free)

    def all(self) -> Iterator[BoundTrigger]:
        for triggers in list(self._by_function.values()):
            yield from list(triggers.values())

    def list(self, urn: FunctionUrn) -> Sequence[BoundTrigger]:
        """Return the triggers of one version or alias, oldest first.

        Raises UnknownFunction, UnknownVersion or UnknownAlias if the URN names one that does not exist, like all
        methods with a URN.
        """
        function = self._catalog.find(urn)
        return [trigger for trigger in self.of_function(function.function_id) if trigger.qualifier == urn.qualifier]

    def in_project(self, project: str, kind: str = "") -> Sequence[BoundTrigger]:
        triggers = [
            trigger
            for trigger in self.all()
            if trigger.project == project and kind.upper() in ("", trigger.kind.upper())
        ]
        return sorted(triggers, key=lambda trigger: (trigger.stored.created_at, trigger.id))

    def of_function(self, function_id: int) -> Sequence[BoundTrigger]:
        """Return the triggers of all versions and aliases of a function, oldest first."""
        triggers = self._by_function.get(function_id, {}).values()
        return sorted(triggers, key=lambda trigger: (trigger.stored.created_at, trigger.id))

    def find(self, project: str, trigger_id: str) -> BoundTrigger:
        """Return a trigger by its id. Raises NotFound if the project has no such trigger."""
        for triggers in self._by_function.values():
            trigger = triggers.get(trigger_id)
            if trigger is not None and trigger.project == project:
                return trigger
        raise NotFound(f"no such trigger: {trigger_id} (it may have been deleted)")

    def show(self, urn: FunctionUrn, kind: str, trigger_id: str) -> BoundTrigger:
        """Return one trigger of a function.

        Raises UnknownTrigger if the function, or the version or alias that the URN names, has no trigger of this kind
        and id. Raises NoTriggerType instead if the function has none and no plugin has the kind.
        """
        function = self._catalog.find(urn)
        trigger = self._by_function.get(function.function_id, {}).get(trigger_id)
        if trigger is None or trigger.kind.upper() != kind.upper():
            raise NoTriggerType(kind) if self._registry.trigger(kind) is None else UnknownTrigger(kind, trigger_id)
        if urn.qualified and trigger.qualifier != urn.qualifier:
            raise UnknownTrigger(kind, trigger_id)
        return trigger

    def bound_to(self, function_id: int, qualifier: str) -> Sequence[StoredResource]:
        """Return the stored triggers of a version, or of an alias if the qualifier begins with ``!``."""
        return [trigger.resource() for trigger in self.of_function(function_id) if trigger.qualifier == qualifier]

    def check_destination(self, spec: DestinationSpec, function: Function) -> None:
        """Raise InvalidField if a function must not have a destination: no plugin takes it, or it closes a loop.

        Raises NotForProject if the project of the function may not use it.
        """
        self._registry.check_destination(spec, function.project)
        for trigger in self.of_function(function.function_id):
            if self._registry.loops(spec, trigger.plugin, trigger.options):
                raise InvalidField("param", spec.param, f"{LOOP} than {trigger.kind} trigger {trigger.id}")

    # --- changing -------------------------------------------------------------------------------------------

    def follow(self, function_id: int, latest: Function | None) -> None:
        """Remove from memory the triggers of a version, alias or function that was deleted.

        ``latest`` is the function's latest version, or None if the function was deleted.
        """
        versions = {version.version for version in self._catalog.versions(function_id)}
        aliases = {f"!{alias.name}" for alias in self._catalog.aliases(function_id)}
        for trigger in self.of_function(function_id):
            if trigger.qualifier not in versions | aliases:
                self._remove(trigger)

    async def create(self, urn: FunctionUrn, draft: TriggerDraft) -> BoundTrigger:
        """Check and store a new trigger for a version or alias.

        Raises UnknownTriggerType if no plugin has the kind; InvalidTrigger if the data is invalid; InvocationModeFixed
        or StatusFixed if the kind does not allow the mode or status. Raises TooManyTriggers at the limit of the
        version; TriggerExists or TriggerClash if another trigger conflicts; NotForProject if the project may not use
        what the trigger reads.
        """
        plugin = self._registry.trigger(draft.kind)
        if plugin is None:
            raise UnknownTriggerType(draft.kind, self.kinds)
        kind = next(name for name in plugin.kinds if name.upper() == draft.kind.upper())
        active = rules.read_status(kind, plugin, draft.status)
        async with self._catalog.changing():
            function, now = self._catalog.find(urn), self._clock.now()
            stored = StoredTrigger(
                id=str(uuid.uuid4()),
                kind=kind,
                qualifier=urn.qualifier,
                active=not plugin.rules.starts_disabled if active is None else active,
                event_type_code=draft.event_type_code,
                data=without_nulls(draft.data),
                created_at=now,
                modified_at=now,
            )
            trigger = self._bind(stored, plugin, function)
            if too_long := rules.excess(kind, trigger.stored.data):
                raise too_long
            _check_log_streams(trigger, self._catalog)
            others = self._beside(trigger)
            self._check_room(trigger, others)
            _check_others(trigger, others)
            _check_claims(trigger, self.all())
            self._check_use(trigger)
            await self._put(trigger, "trigger created")
        return trigger

    async def update(
        self,
        urn: FunctionUrn,
        kind: str,
        trigger_id: str,
        change: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        status: str = "",
    ) -> BoundTrigger:
        """Replace the trigger's data by an object, or merge the objects of a list into it, one after another.

        An empty ``status`` leaves the status.

        Raises UnknownTrigger if the trigger does not exist; NoTriggerType if no plugin has the kind; otherwise the
        errors of ``create`` that concern data, status and conflicts.
        """
        async with self._catalog.changing():
            old = self.show(urn, kind, trigger_id)
            plugin = self._registry.trigger(kind)
            if plugin is None:
                raise NoTriggerType(kind)
            active = rules.read_status(old.kind, plugin, status)
            generation, data = old.stored.generation + 1, rules.changed(plugin, old.stored.data, change)
            before, names = old.stored.data, plugin.rules.claimed
            claims = old.options is None or any(before.get(name) != data.get(name) for name in names)
            stored = msgspec.structs.replace(
                old.stored,
                data=data,
                active=old.stored.active if active is None else active,
                generation=generation,
                enabled=old.stored.enabled if old.stored.active else generation,
                claimed_at=self._clock.now() if claims else old.stored.claimed_at,
                modified_at=self._clock.now(),
            )
            trigger = self._bind(stored, plugin, self._catalog.find(urn))
            if trigger.stored.data != old.stored.data and (too_long := rules.excess(trigger.kind, trigger.stored.data)):
                raise too_long
            if trigger.stored.active or trigger.options != old.options:  # otherwise, it is only disabled
                self._check_use(trigger)
            rules.check_fixed(old.kind, plugin, old.stored.data, trigger.stored.data)
            if trigger.options != old.options:
                _check_log_streams(trigger, self._catalog)
            _check_others(trigger, self._beside(trigger))
            if claims:
                _check_claims(trigger, self.all())
            await self._put(trigger, "trigger changed")
        return trigger

    async def delete(self, urn: FunctionUrn, kind: str, trigger_id: str) -> None:
        async with self._catalog.changing():
            await self._delete(self.show(urn, kind, trigger_id))

    async def delete_all(self, urn: FunctionUrn) -> None:
        """Delete the triggers of a version or alias, or of the whole function if ``urn`` names neither."""
        async with self._catalog.changing():
            for trigger in self.of_function(self._catalog.find(urn).function_id):
                if not urn.qualified or trigger.qualifier == urn.qualifier:
                    await self._delete(trigger)

    # --- inside ---------------------------------------------------------------------------------------------

    def _check_use(self, trigger: BoundTrigger) -> None:
        """Raise NotForProject if the trigger's project may not use what it reads.

        Raises InvalidTrigger if a destination of the trigger's function calls the function again without end.
        """
        self._registry.check_use(trigger.plugin, trigger.options, trigger.project)
        for version in self._catalog.versions(trigger.function_id):
            settings = self._catalog.settings_of(trigger.function_id, version.version)
            for spec in (settings.on_success, settings.on_failure) if settings is not None else ():
                if spec is not None and self._registry.loops(spec, trigger.plugin, trigger.options):
                    raise InvalidTrigger(trigger.kind, rules.EVENT_DATA, trigger.given, f"{LOOP} than {spec.param}")

    def _beside(self, trigger: BoundTrigger) -> Sequence[BoundTrigger]:
        """Return the triggers with which a new or changed one may conflict: of its function, or of its project."""
        whole = trigger.plugin.rules.conflicts is not None
        return self.in_project(trigger.project) if whole else self.of_function(trigger.function_id)

    def _check_room(self, new: BoundTrigger, others: Sequence[BoundTrigger]) -> None:
        most = self._catalog.limits.triggers
        limited = sum(other.plugin.rules.limited and _same_version(new, other) for other in others)
        if new.plugin.rules.limited and limited >= most:
            raise TooManyTriggers(new.kind, most)

    def _bind(self, stored: StoredTrigger, plugin: Plugin, function: Function) -> BoundTrigger:
        unknown = rules.unknown_keys(plugin, stored.data)
        free, service = stored.kind in self._free, self._registry.service(plugin)
        trigger = bind(stored, plugin, function, self.region, free=free, service=service)
        if unknown:
            log.info(
                "unknown keys ignored", trigger=trigger.id, kind=trigger.kind, function=trigger.function, keys=unknown
            )
        too_long = rules.excess(trigger.kind, trigger.stored.data)
        return msgspec.structs.replace(trigger, problem=f"it goes on, but {too_long}") if too_long else trigger

    def _restore(self, stored: StoredTrigger, function: Function) -> BoundTrigger:
        plugin = self._registry.trigger(stored.kind)
        try:
            if plugin is None:
                raise NoTriggerType(stored.kind)
            return self._bind(stored, plugin, function)
        except FunctiondError as error:
            log.warning("trigger cannot be read", trigger=stored.id, kind=stored.kind, problem=str(error))
            return bind_unreadable(stored, plugin, function, self.region, str(error))

    async def _put(self, trigger: BoundTrigger, event: str) -> None:
        await self._store.put(trigger.resource(msgspec.json.encode(trigger.stored)))
        self._add(trigger)
        log.info(event, trigger=trigger.id, kind=trigger.kind, function=trigger.function, active=trigger.stored.active)
        _warn_without_source(trigger)
        self.changed(trigger.id, trigger)

    async def _delete(self, trigger: BoundTrigger) -> None:
        resource = trigger.resource()
        await self._store.delete(resource.kind, resource.owner, resource.id)
        self._remove(trigger)

    def _add(self, trigger: BoundTrigger) -> None:
        self._by_function.setdefault(trigger.function_id, {})[trigger.id] = trigger

    def _remove(self, trigger: BoundTrigger) -> None:
        triggers = self._by_function[trigger.function_id]
        del triggers[trigger.id]
        if not triggers:
            del self._by_function[trigger.function_id]
        log.info("trigger deleted", trigger=trigger.id, kind=trigger.kind, function=trigger.function)
        self.changed(trigger.id, None)


def _warn_without_source(trigger: BoundTrigger) -> None:
    """Log a warning if a trigger is active but its kind has no source. Triggers of some kinds can only be stored."""
    if trigger.stored.active and trigger.options is not None and trigger.plugin.trigger is None:
        log.warning("trigger has no source: stored, but will not fire", trigger=trigger.id, kind=trigger.kind)


def _check_others(new: BoundTrigger, others: Sequence[BoundTrigger]) -> None:
    """Raise if a trigger conflicts with another trigger of its kind in its project.

    Raises TriggerExists if such a trigger of the same version or alias has the same values in the fields that must be
    unique; TriggerClash if the plugin does not allow both triggers together.
    """
    own, key = new.plugin.rules, rules.same_key(new.plugin, new.options)
    for other in others:
        if other.kind != new.kind or other.id == new.id or other.options is None:
            continue
        if key and _same_version(new, other) and key == rules.same_key(other.plugin, other.options):
            fields = ", ".join(f"{name} {value}" for name, value in zip(own.unique, key, strict=True))
            raise TriggerExists(new.kind, fields, other.id)
        if own.conflicts is not None and own.conflicts(
            new.options, other.options, new.function_id == other.function_id
        ):
            used = subject_of(other) or "a resource that this trigger needs"
            problem = f"the {new.kind} trigger {other.id} of {other.function} already uses {used}: change or delete it"
            raise TriggerClash(new.kind, problem)


def _check_claims(new: BoundTrigger, others: Iterable[BoundTrigger]) -> None:
    """Raise TriggerClash if a trigger would take events of one of another project, about which the error is silent."""
    taken = new.plugin.rules.taken
    for other in others if taken is not None else ():
        foreign = other.plugin is new.plugin and other.project != new.project and other.options is not None
        if foreign and taken is not None and (problem := taken(new.kind, new.options, other.kind, other.options)):
            raise TriggerClash(new.kind, problem)


def _same_version(new: BoundTrigger, other: BoundTrigger) -> bool:
    return (new.function_id, new.qualifier) == (other.function_id, other.qualifier)


def _check_log_streams(trigger: BoundTrigger, catalog: Catalog) -> None:
    """Raise InvalidTrigger if the plugin refuses the trigger because of a status stream of its function's project."""
    refuse = trigger.plugin.rules.refuse
    if refuse is None:
        return
    streams = {status_log_target(trigger.project)}
    for function in catalog.all():
        settings = catalog.settings_of(function.function_id, function.version)
        if function.project == trigger.project and settings is not None and settings.status_log:
            streams.add(status_log_target_of(function.project, settings.details))
    if refused := refuse(trigger.options, streams):
        field, reason = refused
        raise InvalidTrigger(trigger.kind, f"event_data.{field}", trigger.given.get(field), reason)
