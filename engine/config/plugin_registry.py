"""The plugins an engine knows, by the kinds they speak for. Each engine has its own registry.

They come from three doors, all alike: given in Python, named as modules (which hold ``plugin`` or ``plugins``), and
found by the entry-point group ``functiond.plugins``, by which the built-in ones come too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import msgspec
import structlog

from engine.config.plugin_settings import read_table
from engine.config.search_path import describe_shadow, import_own_plugins
from engine.config.validation import describe_issue
from engine.errors import InvalidField, SettingsError
from engine.model import DestinationSpec
from engine.protocols import CodeLinks, Destination, Plugin

GROUP = "functiond.plugins"

log = structlog.get_logger("functiond")


class Registry:
    """``tables`` are the settings of services, as they stand below ``plugins``. Raises SettingsError."""

    def __init__(self, plugins: Iterable[Plugin] = (), tables: Mapping[str, Any] | None = None) -> None:
        self._by_kind: dict[str, Plugin] = {}
        for plugin in plugins:
            self.add(plugin)
        self._services = _services(self._by_kind.values(), tables or {})

    def add(self, plugin: Plugin) -> None:
        """Later ones replace earlier ones of the same kind, so that a user's own wins over the built-in."""
        for kind in plugin.kinds:
            self._by_kind[kind.upper()] = plugin

    def destination(self, spec: DestinationSpec) -> Destination:
        """The destination that asynchronous settings name. Raises InvalidField."""
        plugin = self._by_kind.get(spec.destination.upper())
        if plugin is None or plugin.destination is None or plugin.param is None:
            raise InvalidField("destination", spec.destination, f"must be one of {', '.join(self.destinations)}")
        try:
            param: Any = msgspec.json.decode(spec.param, type=plugin.param)
        except msgspec.ValidationError as error:
            found = describe_issue(error, msgspec.json.decode(spec.param), plugin.param)
            field = f"param.{found.field}" if found.field else "param"
            raise InvalidField(f"{field} of {spec.destination}", found.value, found.allowed) from None
        return plugin.destination(param)

    def check_destination(self, spec: DestinationSpec) -> None:
        self.destination(spec)

    def trigger(self, kind: str) -> Plugin | None:
        """The plugin that knows triggers of this kind."""
        plugin = self._by_kind.get(kind.upper())
        return plugin if plugin is not None and plugin.options is not None else None

    def service(self, plugin: Plugin) -> Any:
        """The settings of its service; None if it has none."""
        return self._services.get(plugin.table)

    @property
    def plugins(self) -> list[Plugin]:
        """Each once, in the order in which they came."""
        return list({id(plugin): plugin for plugin in self._by_kind.values()}.values())

    def plugin(self, kind: str) -> Plugin | None:
        return self._by_kind.get(kind.upper())

    @property
    def code_links(self) -> CodeLinks | None:
        """Where code lies that a link names; None without a configured store."""
        plugins = [plugin for plugin in self._by_kind.values() if plugin.code_links is not None]
        found = (plugin.code_links(self.service(plugin)) for plugin in plugins if plugin.code_links)
        return next((links for links in found if links is not None), None)

    @property
    def triggers(self) -> list[str]:
        """Kinds of triggers, as the API writes them."""
        return sorted({kind for p in self._by_kind.values() if p.options is not None for kind in p.kinds})

    @property
    def destinations(self) -> list[str]:
        return sorted({p.kinds[0] for p in self._by_kind.values() if p.destination is not None})


def _services(plugins: Iterable[Plugin], tables: Mapping[str, Any]) -> dict[str, Any]:
    """Checked settings by table. A service without a table has its defaults."""
    kinds = {plugin.table: plugin.service for plugin in plugins if plugin.service is not None}
    for name in tables:
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean plugins.{near[0]}?" if near else f"known: {', '.join(sorted(kinds)) or 'none'}"
            raise SettingsError(f"unknown setting plugins.{name}: {hint}")
    return {name: read_table(name, tables.get(name, {}), kind) for name, kind in kinds.items()}


def load_plugins(modules: Iterable[str] = ()) -> list[Plugin]:
    """Built-in and installed plugins, then those of the named modules. Raises SettingsError."""
    import_own_plugins()
    found: list[Plugin] = []
    for entry in entry_points(group=GROUP):
        found.append(entry.load())
    for name in modules:
        found.extend(_from_module(name))
    return found


def _from_module(name: str) -> list[Plugin]:
    try:
        module = import_module(name)
    except ImportError as error:
        note = _shadow_note(error.name or name)
        raise SettingsError(f"plugin module {name} cannot be imported: {error}{note}") from error
    found = getattr(module, "plugins", None) or [getattr(module, "plugin", None)]
    if not all(isinstance(plugin, Plugin) for plugin in found):
        near = difflib.get_close_matches("plugin", dir(module), n=1)
        hint = f" (did you mean {near[0]} to be it?)" if near else ""
        raise SettingsError(f"plugin module {name} has no `plugin = Plugin(...)`{hint}{_shadow_note(name)}")
    if shadow := describe_shadow(name):
        log.warning("plugin module is not the one of the current folder", module=name, problem=shadow)
    return list(found)


def _shadow_note(name: str) -> str:
    shadow = describe_shadow(name)
    return f" ({shadow})" if shadow else ""
