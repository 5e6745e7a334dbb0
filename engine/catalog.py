"""What can be invoked: all functions and their asynchronous settings, in memory and on disk.

Reading never waits. A change is checked, goes to the store, and only then shows here; changes come one at a time.
Each change of a function gives it a new revision, and those who watch are told. Functions are known by
(project, package, name) to the world and by ``function_id`` inside; an id holds its versions, of which only
``latest`` exists so far.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from engine.clock import Clock
from engine.codestore import CodeSource, CodeStore
from engine.errors import (
    FunctionExists,
    InvalidField,
    NoAsyncSettings,
    TooManyFunctions,
    UnknownAlias,
    UnknownFunction,
    UnknownVersion,
)
from engine.function_rules import MayRunLong, check_function
from engine.function_rules import listed as listed
from engine.function_rules import priority_cap as priority_cap
from engine.function_rules import weight as weight
from engine.model import AsyncSettings, DestinationSpec, Function
from engine.protocols import CatalogStore
from engine.settings_rules import check_settings, function_targets
from engine.urn import LATEST, FunctionUrn

MAX_FUNCTIONS = 400  #: per project

Name = tuple[str, str, str]  #: project, package, name
Watcher = Callable[[int, Function | None], None]
CheckDestination = Callable[[DestinationSpec], None]


class Catalog:
    """Knows every function. ``load`` it once before use."""

    def __init__(
        self,
        store: CatalogStore,
        codes: CodeStore,
        clock: Clock,
        *,
        region: str,
        max_timeout: int = 900,
        may_run_long: MayRunLong | None = None,
        check_destination: CheckDestination | None = None,
    ) -> None:
        self._store, self._codes, self._clock = store, codes, clock
        self._region, self._max_timeout, self._may_run_long = region, max_timeout, may_run_long or listed(())
        self._check_destination = check_destination
        self._ids: dict[Name, int] = {}
        self._functions: dict[int, dict[str, Function]] = {}
        self._settings: dict[tuple[int, str], AsyncSettings] = {}
        self._changing = anyio.Lock()
        self._watchers: list[Watcher] = []

    async def load(self) -> None:
        """Read everything, and remove code that nothing refers to."""
        functions, settings = await self._store.load()
        for function in functions:
            self._show(function)
        self._settings = dict(settings)
        await self._codes.sweep({function.code.sha256 for function in functions})

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher(function_id, function)`` after each change; with None once the function is gone."""
        self._watchers.append(watcher)

    # --- reading --------------------------------------------------------------------------------------------

    def resolve(self, function_id: int, version: str) -> Function | None:
        versions = self._functions.get(function_id)
        return versions.get(version) if versions else None

    def settings_of(self, function_id: int, version: str) -> AsyncSettings | None:
        return self._settings.get((function_id, version))

    def find(self, urn: FunctionUrn) -> Function:
        """The version that a URN means now. Raises UnknownFunction, UnknownVersion, UnknownAlias."""
        function_id = self._ids.get((urn.project, urn.package, urn.name))
        if function_id is None:
            raise UnknownFunction(urn.name)
        function = self._functions[function_id].get(urn.qualifier)
        if function is None:
            raise UnknownAlias(urn.alias) if urn.alias is not None else UnknownVersion(urn.qualifier)
        return function

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

    def settings_by_version(self, urn: FunctionUrn) -> Sequence[tuple[Function, AsyncSettings]]:
        """All the asynchronous settings of a function."""
        versions = self._functions[self.find(urn).function_id].values()
        pairs = ((function, self.settings_of(function.function_id, function.version)) for function in versions)
        return [(function, settings) for function, settings in pairs if settings is not None]

    def show_settings(self, urn: FunctionUrn) -> AsyncSettings:
        function = self.find(urn)
        settings = self.settings_of(function.function_id, function.version)
        if settings is None:
            raise NoAsyncSettings(str(function.urn(self._region)))
        return settings

    # --- changing -------------------------------------------------------------------------------------------

    async def create(self, draft: Function, source: CodeSource) -> Function:
        """Store a new function; the id, the code and the times of ``draft`` are filled in here."""
        self._check(draft)
        self._check_room(draft)
        code = await self._codes.add(source, handler=draft.handler)
        async with self._change():
            self._check_room(draft)
            now = self._clock.now()
            function_id = await self._store.new_function_id()
            function = msgspec.structs.replace(
                draft, function_id=function_id, version=LATEST, revision=1, code=code, created_at=now, modified_at=now
            )
            await self._put(function)
        return function

    async def update_code(self, urn: FunctionUrn, source: CodeSource, details: dict[str, Any]) -> Function:
        code = await self._codes.add(source, handler=self._changeable(urn).handler)
        return await self.update(urn, {"code": code, "details": details})

    async def update(self, urn: FunctionUrn, changes: dict[str, Any]) -> Function:
        """Change the named fields; ``details`` are merged into those that are there."""
        async with self._change():
            old = self._changeable(urn)
            merged = {**old.details, **changes.get("details", {})}
            changes = {**changes, "details": merged, "revision": old.revision + 1, "modified_at": self._clock.now()}
            function = msgspec.structs.replace(old, **changes)
            self._check(function)
            await self._put(function)
        return function

    async def delete(self, urn: FunctionUrn) -> None:
        """Remove a whole function; its waiting invocations are discarded when their turn comes."""
        if urn.qualified and urn.qualifier == LATEST:
            hint = "latest cannot be deleted alone: leave the version out to delete the function"
            raise InvalidField("version", LATEST, hint)
        async with self._change():
            function = self.find(urn)
            await self._store.delete_function(function.function_id)
            del self._ids[function.project, function.package, function.name]
            for version in self._functions.pop(function.function_id):
                self._settings.pop((function.function_id, version), None)
            self._tell(function.function_id, None)

    async def put_settings(self, urn: FunctionUrn, settings: AsyncSettings) -> AsyncSettings:
        """Replace the settings of this version; what they leave out is back at its default."""
        async with self._change():
            function = self._changeable(urn)
            targets = check_settings(settings, function, self._region, self._check_destination)
            self._check_loop(_name(function), targets)
            old = self.settings_of(function.function_id, function.version)
            now = self._clock.now()
            settings = msgspec.structs.replace(settings, created_at=old.created_at if old else now, modified_at=now)
            await self._store.put_settings(function.function_id, function.version, settings)
            self._settings[function.function_id, function.version] = settings
        return settings

    async def delete_settings(self, urn: FunctionUrn) -> None:
        async with self._change():
            self.show_settings(urn)
            function = self.find(urn)
            await self._store.delete_settings(function.function_id, function.version)
            del self._settings[function.function_id, function.version]

    # --- the inside -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        # A caller that is cancelled between the store and the memory would leave them telling different things.
        async with self._changing:
            with anyio.CancelScope(shield=True):
                yield

    async def _put(self, function: Function) -> None:
        await self._store.put_function(function)
        self._show(function)
        self._tell(function.function_id, function)

    def _show(self, function: Function) -> None:
        self._ids[_name(function)] = function.function_id
        self._functions.setdefault(function.function_id, {})[function.version] = function

    def _tell(self, function_id: int, function: Function | None) -> None:
        for watcher in self._watchers:
            watcher(function_id, function)

    def _changeable(self, urn: FunctionUrn) -> Function:
        """Versions are frozen: only ``latest`` changes."""
        function = self.find(urn)
        if function.version != LATEST:
            raise InvalidField("version", function.version, "only latest can be changed")
        return function

    def _check(self, function: Function) -> None:
        urn = function.urn(self._region)
        check_function(function, urn, max_timeout=self._max_timeout, may_run_long=self._may_run_long)

    def _check_room(self, draft: Function) -> None:
        if _name(draft) in self._ids:
            raise FunctionExists(draft.name)
        if len(self.list(draft.project)) >= MAX_FUNCTIONS:
            raise TooManyFunctions(MAX_FUNCTIONS)

    def _check_loop(self, origin: Name, targets: set[Name]) -> None:
        """Refuse targets from which destinations lead back to ``origin``."""
        seen: set[Name] = set()
        while targets:
            name = targets.pop()
            if name == origin:
                raise InvalidField("destination_config", ":".join(origin[1:]), "destinations must not lead back here")
            if name in seen:
                continue
            seen.add(name)
            targets |= self._targets_of(name)

    def _targets_of(self, name: Name) -> set[Name]:
        function_id = self._ids.get(name)
        versions = self._functions.get(function_id, {}) if function_id is not None else {}
        found: set[Name] = set()
        for version in versions:
            settings = self._settings.get((function_id or 0, version))
            if settings is not None:
                found |= function_targets(settings, self._region, name[0])
        return found


def _name(function: Function) -> Name:
    return (function.project, function.package, function.name)
