"""Registry of plugins by kind, such as OBS: the name of a type of trigger or destination. Each engine has one registry.

Plugins have three origins: objects that an embedding program passes, modules that the settings name (their attribute
``plugin`` is a plugin, or ``plugins`` a list of plugins), and the entry-point group ``functiond.plugins``, which also
contains the built-in plugins.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import msgspec
import structlog
from msgspec import Struct, inspect

from engine.config.search_path import describe_shadow, import_own_plugins
from engine.config.validation import describe_issue
from engine.errors import InvalidField, NotForProject, SettingsError
from engine.model import DestinationSpec
from engine.model.quotas import Quotas
from engine.protocols import CodeLinks, Destination, Plugin

GROUP = "functiond.plugins"

log = structlog.get_logger("functiond")


class Registry:
    """Plugins by kind, with the settings of their services.

    ``tables`` are the tables below ``plugins`` in the settings, by name. The constructor raises SettingsError if a
    table is invalid, or if no plugin with a service declares a table of that name.
    """

    def __init__(
        self, plugins: Iterable[Plugin] = (), tables: Mapping[str, Any] | None = None, limits: Quotas | None = None
    ) -> None:
        self.limits = limits or Quotas()
        self._by_kind: dict[str, Plugin] = {}
        self.several: Callable[[], bool] = lambda: False  #: credentials name several projects; set when wired
        for plugin in plugins:
            self.add(plugin)
        self._services = _services(self._by_kind.values(), tables or {})

    def add(self, plugin: Plugin) -> None:
        """Register a plugin for each of its kinds. A plugin registered earlier for a kind is replaced for that kind.

        Users can thus override built-in plugins.
        """
        for kind in plugin.kinds:
            self._by_kind[kind.upper()] = plugin

    def destination(self, spec: DestinationSpec) -> tuple[Destination, Plugin, Any]:
        """Return the destination that ``spec`` describes, its plugin and parameters. These must be valid JSON.

        Raises InvalidField if no plugin has destinations of this kind, or if the parameters are invalid.
        """
        plugin = self._by_kind.get(spec.destination.upper())
        if plugin is None or plugin.destination is None or plugin.param is None:
            raise InvalidField("destination", spec.destination, f"must be one of {', '.join(self.destinations)}")
        try:
            param: Any = msgspec.json.decode(spec.param, type=plugin.param)
        except msgspec.ValidationError as error:
            issue = describe_issue(error, msgspec.json.decode(spec.param), plugin.param)
            field = f"param.{issue.field}" if issue.field else "param"
            raise InvalidField(field, issue.value, issue.allowed) from None
        except InvalidField as error:
            raise InvalidField(f"param.{error.field}", error.value, error.allowed) from None
        return plugin.destination(param), plugin, param

    def check_destination(self, spec: DestinationSpec, project: str) -> None:
        _, plugin, param = self.destination(spec)
        self.check_use(plugin, param, project)

    def may_use(self, project: str, projects: Collection[str]) -> bool:
        return project in projects or "*" in projects or not (projects or self.several())

    def check_use(self, plugin: Plugin, given: Any, project: str) -> None:
        """Raise NotForProject if a project may not use what options, ``param`` or a link name in the settings."""
        for name, projects in plugin.uses(self.service(plugin), given).items() if plugin.uses else ():
            if not self.may_use(project, projects):
                raise NotForProject(".".join(filter(None, ("plugins", plugin.table, name))), project)

    def check_link(self, link: str, project: str) -> None:
        """Raise NotForProject if a project may not read the package of a link, BadLink for an invalid one."""
        for plugin in self.plugins:
            if plugin.code_links is not None:
                self.check_use(plugin, link, project)

    def loops(self, spec: DestinationSpec, plugin: Plugin, options: Any) -> bool:
        """Return whether outcomes at a destination become events of a trigger of ``plugin``, without their hops."""
        if plugin.loops is None or options is None or self._by_kind.get(spec.destination.upper()) is not plugin:
            return False
        return plugin.loops(self.service(plugin), options, msgspec.json.decode(spec.param, type=plugin.param))

    def trigger(self, kind: str) -> Plugin | None:
        """Return the plugin that provides triggers of this kind; None if no plugin does."""
        plugin = self._by_kind.get(kind.upper())
        return plugin if plugin is not None and plugin.options is not None else None

    def service(self, plugin: Plugin) -> Any:
        """Return the validated settings of a plugin's service; None if the plugin has no service."""
        return self._services.get(plugin.table)

    @property
    def plugins(self) -> list[Plugin]:
        """Registered plugins. A plugin with several kinds is listed a single time, at its first kind."""
        return list({id(plugin): plugin for plugin in self._by_kind.values()}.values())

    def plugin(self, kind: str) -> Plugin | None:
        return self._by_kind.get(kind.upper())

    @property
    def code_links(self) -> CodeLinks | None:
        """Reader of code packages in an object store, by their links; None if no plugin has such a store."""
        plugins = [plugin for plugin in self._by_kind.values() if plugin.code_links is not None]
        readers = (plugin.code_links(self.service(plugin)) for plugin in plugins if plugin.code_links)
        return next((links for links in readers if links is not None), None)

    @property
    def triggers(self) -> list[str]:
        """Kinds for which a plugin provides triggers, sorted and spelled as in the API."""
        return sorted({kind for p in self._by_kind.values() if p.options is not None for kind in p.kinds})

    @property
    def destinations(self) -> list[str]:
        return sorted({p.kinds[0] for p in self._by_kind.values() if p.destination is not None})


def _services(plugins: Iterable[Plugin], tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated settings of each plugin's service, by table name. A service without a table gets defaults.

    Raises SettingsError if a table is invalid, or if no service has a table of that name.
    """
    kinds = {plugin.table: plugin.service for plugin in plugins if plugin.service is not None}
    for name in tables:
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean plugins.{near[0]}?" if near else f"known: {', '.join(sorted(kinds)) or 'none'}"
            raise SettingsError(f"unknown setting plugins.{name}: {hint}")
    return {name: _read_table(name, tables.get(name, {}), kind) for name, kind in kinds.items()}


def _read_table(name: str, table: Any, kind: type[Struct]) -> Any:
    """Return the table of a plugin in the settings as a struct of the type ``kind``.

    A list in an environment variable is written as comma-separated text. Raises SettingsError if the table is invalid,
    or has a setting that the mapping ``REPLACED`` of ``kind`` lists with the advice for its users.
    """
    for old, advice in getattr(kind, "REPLACED", {}).items():
        if isinstance(table, dict) and old in table:
            raise SettingsError(f"plugins.{name}.{old} has been replaced: {advice}")
    try:
        return msgspec.convert(_with_lists(table, inspect.type_info(kind)), kind, strict=False)
    except msgspec.ValidationError as error:
        issue = describe_issue(error, table, kind)  # the value may be a secret
        raise SettingsError(f"{'.'.join(filter(None, ('plugins', name, issue.field)))}: {issue.allowed}") from None


def _with_lists(value: Any, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        types = {field.encode_name: field.type for field in kind.fields}
        return {name: _with_lists(item, types[name]) if name in types else item for name, item in value.items()}
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _with_lists(item, kind.value_type) for name, item in value.items()}
    if isinstance(kind, inspect.ListType | inspect.VarTupleType) and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def load_plugins(modules: Iterable[str] = ()) -> list[Plugin]:
    """Return built-in and installed plugins, then the plugins of the modules with these names.

    Raises SettingsError if a module cannot be imported or contains no plugin, or if a foreign package is imported as
    ``plugins``.
    """
    import_own_plugins()
    plugins: list[Plugin] = [entry.load() for entry in entry_points(group=GROUP)]
    for name in modules:
        plugins.extend(_from_module(name))
    return plugins


def _from_module(name: str) -> list[Plugin]:
    try:
        module = import_module(name)
    except ImportError as error:
        note = _shadow_note(error.name or name)
        raise SettingsError(f"plugin module {name} cannot be imported: {error}{note}") from error
    plugins = getattr(module, "plugins", None) or [getattr(module, "plugin", None)]
    if not all(isinstance(plugin, Plugin) for plugin in plugins):
        near = difflib.get_close_matches("plugin", dir(module), n=1)
        hint = f" (did you mean to name {near[0]} `plugin`?)" if near else ""
        raise SettingsError(f"plugin module {name} has no `plugin = Plugin(...)`{hint}{_shadow_note(name)}")
    if shadow := describe_shadow(name):
        log.warning("plugin module is not imported from the current folder", module=name, problem=shadow)
    return list(plugins)


def _shadow_note(name: str) -> str:
    shadow = describe_shadow(name)
    return f" ({shadow})" if shadow else ""
