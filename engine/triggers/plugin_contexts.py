"""What the parts of one plugin share in one engine: its settings, its service, its tables, its routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
from msgspec import Struct

from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import SignatureVerifier
from engine.config.plugin_registry import Registry
from engine.logs.feed import LogFeed
from engine.model.clock import Clock
from engine.protocols import Callers, Plugin, PluginService, Routes, Store
from engine.protocols.audit import Audit
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.callers import DeferredAuthenticator
from engine.triggers.routes import Mounts, PluginRoutes

#: The clock may be set: a far moment is looked at again after this many seconds.
MAX_TIMER = 3600.0


class EnginePluginContext(Struct, frozen=True, kw_only=True):
    """Satisfies ``PluginContext``."""

    settings: Any
    service: PluginService | None
    store: Store
    routes: Routes
    clock: Clock
    region: str
    callers: Callers
    audit: Audit
    logs: LogFeed

    async def sleep_until(self, moment: float) -> None:
        while self.clock.now() < moment:
            await self.sleep_toward(moment)

    async def sleep_toward(self, moment: float) -> None:
        await anyio.sleep(min(max(0.0, moment - self.clock.now()), MAX_TIMER))


class PluginContexts:
    """Those of every plugin, by the name of its table. ``serve`` of a plugin may raise SettingsError."""

    def __init__(
        self,
        registry: Registry,
        store: Callable[[str], Store],
        clock: Clock,
        *,
        region: str,
        credentials: bool,
        failures: AuthThrottle,
        audit: Audit,
        logs: LogFeed,
    ) -> None:
        self.mounts = Mounts()
        self.callers = DeferredAuthenticator(SignatureVerifier(clock, failures), required=credentials)
        self._registry = registry
        self._by_table: dict[str, EnginePluginContext] = {}
        for plugin in registry.plugins:
            settings = registry.service(plugin)
            self._by_table[plugin.table] = EnginePluginContext(
                settings=settings,
                service=plugin.serve(settings) if plugin.serve else None,
                store=store(plugin.table),
                routes=PluginRoutes(self.mounts, plugin.table),
                clock=clock,
                region=region,
                callers=self.callers,
                audit=audit,
                logs=logs,
            )

    def of(self, plugin: Plugin) -> EnginePluginContext:
        return self._by_table[plugin.table]

    def context_for(self, kind: str) -> EnginePluginContext:
        """Of the plugin of a trigger or destination that is known."""
        plugin = self._registry.plugin(kind)
        assert plugin is not None
        return self.of(plugin)

    def standing(self, trigger: BoundTrigger) -> Mapping[str, Any]:
        """What the running service of a trigger's plugin tells of it."""
        told, parts = trigger.plugin.rules.runtime_fields, self._by_table.get(trigger.plugin.table)
        if told is None or parts is None or trigger.options is None:
            return {}
        return told(parts.service, trigger.options, trigger.id, trigger.function)

    def services(self) -> Mapping[str, EnginePluginContext]:
        """Of the plugins that run something."""
        return {table: parts for table, parts in self._by_table.items() if parts.service is not None}
