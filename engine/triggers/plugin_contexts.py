"""Plugin contexts: one object per plugin with its settings, service, store, routes and authentication of callers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from engine.asgi.wire import Headers, ReadBody, Scope
from engine.auth.verifier import SignatureVerifier, address_of
from engine.config.plugin_registry import Registry
from engine.errors import AccessDenied, Unauthorized
from engine.logs.feed import LogBoard
from engine.model.clock import Clock
from engine.model.quotas import Quotas
from engine.model.urn import parse_urn
from engine.protocols import Callers, Plugin, PluginService, Routes, Store
from engine.protocols.audit import Audit
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import TriggerDraft, Triggers
from engine.scheduling.backlog import DiskGuard
from engine.triggers.routes import Mounts, NetworkOptions, PluginRoutes

DUE_TIMES = 3  #: that are shown of a timer


class CallerAuthenticator(Protocol):
    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str: ...


class PluginAuthenticator:
    """Authenticator of requests for all plugins of an engine.

    Failed attempts count for the whole engine: the API and all plugins delay refusals of an address that fails too
    often. ``authenticator`` checks credentials of the engine. ``identify`` rejects all requests if it is None, because
    no credentials are configured.
    """

    def __init__(self, verifier: SignatureVerifier, authenticator: CallerAuthenticator | None) -> None:
        self._verifier, self._authenticator = verifier, authenticator

    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str:
        if self._authenticator is None:
            raise Unauthorized("no credentials are configured to check requests with: set auth.file")
        return await self._authenticator.identify(scope, headers, read)

    async def signer(self, keys: Mapping[str, bytes], scope: Scope, headers: Headers, read: ReadBody) -> str:
        claim = self._verifier.claim(scope, headers, keys.get)
        await self._verifier.verify_before(read, claim)
        return claim.proof.access

    def attempt(self, scope: Scope) -> AbstractContextManager[None]:
        return self._verifier.attempt(address_of(scope))


class GuardedStore:
    """Store of one plugin that checks free disk space before it puts rows. Raises DiskLow if the disk is nearly full.

    Reads and deletions are never rejected, so that space can be freed. The last free space is reserved for accepted
    invocations.
    """

    def __init__(self, store: Store, disk: DiskGuard) -> None:
        self._disk = disk
        self._write = store.write
        self.get, self.scan, self.purge = store.get, store.scan, store.purge

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        if put:
            self._disk.check(sum(map(len, put.values())))
        await self._write(table, put, delete)


class EnginePluginContext(Struct, frozen=True, kw_only=True):
    """Objects of the engine that one plugin uses: its settings, service, store and routes."""

    settings: Any
    service: PluginService | None
    store: Store
    routes: Routes
    clock: Clock
    region: str
    callers: Callers
    audit: Audit
    logs: LogBoard
    limits: Quotas
    may_use: Callable[[str, Collection[str]], bool]
    limited_egress: Callable[[], AbstractContextManager[None]]
    triggers: Triggers

    async def create_trigger(self, kind: str, project: str, function: str, data: Mapping[str, Any]) -> str:
        urn = parse_urn(function, region=self.region, project=project)
        if urn.project != project:
            raise AccessDenied(f"{function} belongs to another project than {project}")
        return (await self.triggers.create(urn, TriggerDraft(kind=kind, data=dict(data)))).id

    async def delete_trigger(self, project: str, trigger_id: str) -> None:
        trigger = self.triggers.find(project, trigger_id)
        urn = parse_urn(trigger.function, region=self.region, project=project)
        await self.triggers.delete(urn, trigger.kind, trigger_id)

    async def sleep_until(self, moment: float) -> None:
        while self.clock.now() < moment:
            await self.sleep_toward(moment)

    async def sleep_toward(self, moment: float) -> None:
        await self.clock.sleep_toward(moment)


class PluginContexts:
    """Contexts of all plugins.

    The constructor calls each plugin's ``serve``, which raises SettingsError if settings are invalid.
    """

    def __init__(
        self,
        registry: Registry,
        store: Callable[[str], Store],
        clock: Clock,
        *,
        triggers: Triggers,
        callers: Callers,
        audit: Audit,
        logs: LogBoard,
        network: NetworkOptions,
    ) -> None:
        self.mounts = Mounts()
        self._tls = network.tls is not None
        self._registry = registry
        self._by_table: dict[str, EnginePluginContext] = {}
        for plugin in registry.plugins:
            settings = registry.service(plugin)
            self._by_table[plugin.table] = EnginePluginContext(
                settings=settings,
                service=plugin.serve(settings) if plugin.serve else None,
                store=store(plugin.table),
                routes=PluginRoutes(self.mounts, plugin.table, network),
                clock=clock,
                region=triggers.region,
                callers=callers,
                audit=audit,
                logs=logs,
                limits=registry.limits,
                may_use=registry.may_use,
                limited_egress=network.egress.limited,
                triggers=triggers,
            )

    def of(self, plugin: Plugin) -> EnginePluginContext:
        return self._by_table[plugin.table]

    def check_use(self, trigger: BoundTrigger) -> None:
        """Raise NotForProject if the project of a trigger may not use what it reads."""
        self._registry.check_use(trigger.plugin, trigger.options, trigger.project)

    def context_for(self, kind: str) -> EnginePluginContext:
        """Return the context of the plugin that has this kind of trigger or destination.

        A plugin must have the kind.
        """
        plugin = self._registry.plugin(kind)
        assert plugin is not None
        return self.of(plugin)

    def subscription_status(self, trigger: BoundTrigger) -> str:
        """Return the status of a trigger's subscription, from its plugin's running service; empty if it has none."""
        status = trigger.plugin.rules.subscription_status
        if status is None or trigger.options is None:
            return ""
        return status(self.of(trigger.plugin).service, trigger.options, trigger.id, trigger.function)

    def address(self, trigger: BoundTrigger) -> str:
        """Return the address to which the events of a trigger are sent; empty if its kind has none."""
        find = trigger.plugin.rules.address
        if find is None or trigger.options is None:
            return ""
        return find(self.of(trigger.plugin).service, trigger.kind, trigger.options, self._tls)

    def due_times(self, trigger: BoundTrigger) -> list[datetime]:
        """Return the next due times of an active timer, in the time zone of its schedule."""
        find, due = trigger.plugin.display.next_due, list[datetime]()
        if find is None or not trigger.runnable:
            return due
        context, since = self.of(trigger.plugin), trigger.stored.modified_at
        moment = context.clock.now()
        while len(due) < DUE_TIMES and (next_due := find(trigger.options, context.settings, since, moment)):
            due.append(next_due)
            moment = next_due.timestamp()
        return due

    def services(self) -> Mapping[str, EnginePluginContext]:
        """Return the contexts of plugins that have a service, by the name of their table in the settings."""
        return {table: context for table, context in self._by_table.items() if context.service is not None}
