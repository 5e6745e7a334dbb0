"""What a URN means now: every version of every function, its asynchronous settings and the aliases, in memory.

Reading never waits. Who changes something writes it to the store first and shows it here afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from engine.errors import NoAsyncSettings, UnknownAlias, UnknownFunction, UnknownVersion
from engine.functions.alias_rules import Headers, choose_version
from engine.model import Alias, AsyncSettings, Function
from engine.model.urn import LATEST, FunctionUrn

Name = tuple[str, str, str]  #: project, package, name


def name_of(function: Function) -> Name:
    return (function.project, function.package, function.name)


class FunctionIndex:
    def __init__(self, region: str, random: Random | None = None) -> None:
        self._region = region
        self._random = random or Random()
        self._ids: dict[Name, int] = {}
        self._functions: dict[int, dict[str, Function]] = {}
        self._settings: dict[tuple[int, str], AsyncSettings] = {}
        self._aliases: dict[int, dict[str, Alias]] = {}
        self._revisions: dict[int, int] = {}  #: the last given, so that none comes twice

    # --- by URN ---------------------------------------------------------------------------------------------

    def find(self, urn: FunctionUrn) -> Function:
        """The version that a URN means, an alias its main one. Raises UnknownFunction, UnknownVersion, UnknownAlias."""
        versions = self._versions(urn)
        return versions.get(urn.qualifier) or versions[self._alias(urn).version]

    def route(self, urn: FunctionUrn, headers: Headers | None = None) -> Function:
        """The version that serves one request: an alias with extra versions may choose another each time."""
        versions = self._versions(urn)
        return versions.get(urn.qualifier) or versions[choose_version(self._alias(urn), headers, self._random)]

    def show_settings(self, urn: FunctionUrn) -> AsyncSettings:
        function = self.find(urn)
        settings = self.settings_of(function.function_id, function.version)
        if settings is None:
            raise NoAsyncSettings(str(function.urn(self._region)))
        return settings

    def settings_by_version(self, urn: FunctionUrn) -> Sequence[tuple[Function, AsyncSettings]]:
        """All the asynchronous settings of a function."""
        versions = self.versions(self.find(urn).function_id)
        pairs = ((function, self.settings_of(function.function_id, function.version)) for function in versions)
        return [(function, settings) for function, settings in pairs if settings is not None]

    # --- by id ----------------------------------------------------------------------------------------------

    def resolve(self, function_id: int, version: str) -> Function | None:
        versions = self._functions.get(function_id)
        return versions.get(version) if versions else None

    def id_of(self, urn: FunctionUrn) -> int | None:
        return self._ids.get((urn.project, urn.package, urn.name))

    def project_of(self, function_id: int) -> str | None:
        function = self.resolve(function_id, LATEST)
        return function.project if function else None

    def settings_of(self, function_id: int, version: str) -> AsyncSettings | None:
        return self._settings.get((function_id, version))

    def versions(self, function_id: int) -> Sequence[Function]:
        """``latest``, then the published ones, oldest first; none if there is no such function."""
        versions = self._functions.get(function_id, {}).values()
        return sorted(versions, key=lambda version: (version.version != LATEST, version.revision))

    def aliases(self, function_id: int) -> Sequence[Alias]:
        return list(self._aliases.get(function_id, {}).values())

    def alias_of(self, function_id: int, name: str) -> Alias:
        """Raises UnknownAlias."""
        alias = self._aliases.get(function_id, {}).get(name)
        if alias is None:
            raise UnknownAlias(name)
        return alias

    # --- all ------------------------------------------------------------------------------------------------

    def list(self, project: str, *, package: str = "", name_part: str = "") -> Sequence[Function]:
        """The ``latest`` of a project's functions, oldest first."""
        functions = (versions[LATEST] for versions in self._functions.values())
        return [
            function
            for function in functions
            if function.project == project
            and (not package or function.package == package)
            and name_part in function.name
        ]

    def all(self) -> Sequence[Function]:
        """Every version of every function."""
        return [function for versions in self._functions.values() for function in versions.values()]

    # --- for those who change -------------------------------------------------------------------------------

    def next_revision(self, function_id: int) -> int:
        """Never given before to any version of this function, so that instances are never mixed up."""
        self._revisions[function_id] = revision = self._revisions.get(function_id, 0) + 1
        return revision

    def show(self, function: Function) -> None:
        function_id = function.function_id
        self._ids[name_of(function)] = function_id
        self._functions.setdefault(function_id, {})[function.version] = function
        self._revisions[function_id] = max(self._revisions.get(function_id, 0), function.revision)

    def show_settings_of(self, function: Function, settings: AsyncSettings | None) -> None:
        """None: it has none any more."""
        if settings is None:
            self._settings.pop((function.function_id, function.version), None)
        else:
            self._settings[function.function_id, function.version] = settings

    def show_alias(self, function_id: int, alias: Alias) -> None:
        self._aliases.setdefault(function_id, {})[alias.name] = alias

    def hide_alias(self, function_id: int, name: str) -> None:
        del self._aliases[function_id][name]

    def hide_version(self, function: Function) -> None:
        del self._functions[function.function_id][function.version]
        self.show_settings_of(function, None)

    def hide(self, function: Function) -> None:
        """The whole function."""
        del self._ids[name_of(function)]
        for version in self._functions.pop(function.function_id).values():
            self.show_settings_of(version, None)
        self._aliases.pop(function.function_id, None)
        self._revisions.pop(function.function_id, None)

    # --- inside ---------------------------------------------------------------------------------------------

    def _versions(self, urn: FunctionUrn) -> dict[str, Function]:
        function_id = self._ids.get((urn.project, urn.package, urn.name))
        if function_id is None:
            raise UnknownFunction(urn.name)
        return self._functions[function_id]

    def _alias(self, urn: FunctionUrn) -> Alias:
        """What a qualifier that is no version must be."""
        if urn.alias is None:
            raise UnknownVersion(urn.qualifier)
        return self.alias_of(self._ids[urn.project, urn.package, urn.name], urn.alias)
