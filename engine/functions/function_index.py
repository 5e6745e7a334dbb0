"""Index of all versions, asynchronous settings and aliases in memory, for look-ups by URN or id.

Look-ups never wait for the disk. A change is written to the store first; then the caller updates this index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from engine.errors import NoAsyncSettings, UnknownAlias, UnknownFunction, UnknownVersion
from engine.functions.alias_rules import Headers, choose_version
from engine.functions.function_rules import app_of
from engine.model import Alias, AsyncSettings, DestinationSpec, Function
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
        self._revisions: dict[int, int] = {}  #: last revision issued per function, so that none is issued twice

    # --- by URN ---------------------------------------------------------------------------------------------

    def find(self, urn: FunctionUrn) -> Function:
        """Return the version of a function that a URN names.

        If the URN names an alias, return the alias's main version.

        Raises UnknownFunction, UnknownVersion or UnknownAlias if the function, the version or the alias does not exist.
        """
        versions = self._versions(urn)
        return versions.get(urn.qualifier) or versions[self._alias(urn).version]

    def route(self, urn: FunctionUrn, headers: Headers | None = None) -> Function:
        """Return the version that serves one request to the URN.

        If the URN names an alias with extra versions, the version is chosen by ``headers`` and at random. Raises the
        same errors as ``find``.
        """
        versions = self._versions(urn)
        return versions.get(urn.qualifier) or versions[choose_version(self._alias(urn), headers, self._random)]

    def show_settings(self, urn: FunctionUrn) -> AsyncSettings:
        function = self.find(urn)
        settings = self.settings_of(function.function_id, function.version)
        if settings is None:
            raise NoAsyncSettings(str(function.urn(self._region)))
        return settings

    def settings_by_version(self, urn: FunctionUrn) -> Sequence[tuple[Function, AsyncSettings]]:
        """Return all versions with asynchronous settings of the function that a URN names, each with its settings."""
        return list(self._settings_by_version(self.find(urn).function_id))

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

    def destination_of(self, function_id: int, version: str, condition: str) -> DestinationSpec | None:
        """Return the present destination of a version's outcomes, for ``success`` or ``failure``."""
        settings = self.settings_of(function_id, version)
        if settings is None:
            return None
        return settings.on_success if condition == "success" else settings.on_failure

    def versions(self, function_id: int) -> Sequence[Function]:
        """Return the ``latest`` version of a function, then its published versions, oldest first.

        The result is empty if the function does not exist.
        """
        versions = self._functions.get(function_id, {}).values()
        return sorted(versions, key=lambda version: (version.version != LATEST, version.revision))

    def aliases(self, function_id: int) -> Sequence[Alias]:
        return list(self._aliases.get(function_id, {}).values())

    def alias_of(self, function_id: int, name: str) -> Alias:
        """Return the function's alias of this name. Raise UnknownAlias if the function has none."""
        alias = self._aliases.get(function_id, {}).get(name)
        if alias is None:
            raise UnknownAlias(name)
        return alias

    # --- all ------------------------------------------------------------------------------------------------

    def list(
        self, project: str, *, package: str = "", name_part: str = "", app: str | None = None
    ) -> Sequence[Function]:
        """Return the ``latest`` version of each function of a project, in the order of creation.

        ``package`` selects functions of one package, ``name_part`` functions whose name contains it, ``app`` functions
        of one app, or of none if it is empty.
        """
        functions = (versions[LATEST] for versions in self._functions.values())
        return [
            function
            for function in functions
            if function.project == project
            and (not package or function.package == package)
            and name_part in function.name
            and (app is None or app_of(function) == app)
        ]

    def destinations_in(self, project: str) -> Iterator[tuple[Function, str, DestinationSpec]]:
        """Yield each destination in a project, with its version and ``success`` or ``failure``, by age of functions."""
        for function in self.list(project):
            for version, settings in self._settings_by_version(function.function_id):
                for condition, spec in (("success", settings.on_success), ("failure", settings.on_failure)):
                    if spec is not None:
                        yield version, condition, spec

    def all(self) -> Sequence[Function]:
        """Return every version of every function in all projects."""
        return [function for versions in self._functions.values() for function in versions.values()]

    # --- changing -------------------------------------------------------------------------------------------

    def next_revision(self, function_id: int) -> int:
        """Return a revision number above all that versions of this function have had since the engine started."""
        self._revisions[function_id] = revision = self._revisions.get(function_id, 0) + 1
        return revision

    def index_function(self, function: Function) -> None:
        function_id = function.function_id
        self._ids[name_of(function)] = function_id
        self._functions.setdefault(function_id, {})[function.version] = function
        self._revisions[function_id] = max(self._revisions.get(function_id, 0), function.revision)

    def index_settings(self, function: Function, settings: AsyncSettings | None) -> None:
        """Set the asynchronous settings of a version in the index. None removes them."""
        if settings is None:
            self._settings.pop((function.function_id, function.version), None)
        else:
            self._settings[function.function_id, function.version] = settings

    def index_alias(self, function_id: int, alias: Alias) -> None:
        self._aliases.setdefault(function_id, {})[alias.name] = alias

    def unindex_alias(self, function_id: int, name: str) -> None:
        del self._aliases[function_id][name]

    def unindex_version(self, function: Function) -> None:
        del self._functions[function.function_id][function.version]
        self.index_settings(function, None)

    def unindex_function(self, function: Function) -> None:
        """Remove a function with all its versions, asynchronous settings and aliases from the index."""
        del self._ids[name_of(function)]
        for version in self._functions.pop(function.function_id).values():
            self.index_settings(version, None)
        self._aliases.pop(function.function_id, None)
        self._revisions.pop(function.function_id, None)

    # --- inside ---------------------------------------------------------------------------------------------

    def _versions(self, urn: FunctionUrn) -> dict[str, Function]:
        function_id = self._ids.get((urn.project, urn.package, urn.name))
        if function_id is None:
            raise UnknownFunction(urn.name)
        return self._functions[function_id]

    def _settings_by_version(self, function_id: int) -> Iterator[tuple[Function, AsyncSettings]]:
        for version in self.versions(function_id):
            if (settings := self.settings_of(function_id, version.version)) is not None:
                yield version, settings

    def _alias(self, urn: FunctionUrn) -> Alias:
        """Return the alias that a URN names. Call after the look-up of the URN's version has failed.

        Raises UnknownVersion if the URN names a version, or UnknownAlias if the alias does not exist.
        """
        if urn.alias is None:
            raise UnknownVersion(urn.qualifier)
        return self.alias_of(self._ids[urn.project, urn.package, urn.name], urn.alias)
