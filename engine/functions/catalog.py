"""Catalog of all functions and their asynchronous settings, in memory and on disk.

One change runs at a time. Each is checked, stored, and only then visible in memory. Changes of functions, versions
and aliases are announced by the signal ``changed``. A change of a field that affects execution gives the function a new
revision, because an instance serves one revision only.

Clients identify a function by (project, package, name), the engine by ``function_id``. A function consists of
``latest``, which can be changed, and published versions, which cannot. The maximum number of instances is an exception:
it belongs to the whole function, so all versions have the same value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import msgspec
from msgspec import UNSET

from engine.code.quota import CodeQuota
from engine.code.store import CodeSource, CodeStore
from engine.errors import FunctionExists, InvalidField, TooManyFunctions, TooManyUsed
from engine.functions.function_index import FunctionIndex, Name, name_of
from engine.functions.function_rules import (
    ALWAYS,
    Condition,
    FunctionRules,
    check_dependencies,
    check_function,
    check_settings,
    equal_for_instances,
    function_targets,
)
from engine.isolation.folders import folders_of
from engine.model import AsyncSettings, CodePackage, Dependency, Function
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.model.urn import LATEST, FunctionUrn
from engine.protocols import CatalogStore, StoredResource

ALIAS = "alias"

#: Returns the versions of dependencies with these ids in a project.
FindDependencies = Callable[[str, Sequence[str]], tuple[Dependency, ...]]
#: Returns the resources, such as triggers, of a version or alias: the arguments are function id and qualifier.
BoundTo = Callable[[int, str], Sequence[StoredResource]]


class Catalog(FunctionIndex):
    """Catalog of all functions. ``load`` must run before any other method.

    ``changed(function_id, latest)`` announces each change of a function, its versions or its aliases. ``latest`` is the
    function's version ``latest``; None if the function was deleted. ``settings_changed(function_id)`` announces changed
    asynchronous settings of one of its versions.
    """

    def __init__(
        self,
        store: CatalogStore,
        codes: CodeStore,
        clock: Clock,
        *,
        region: str,
        rules: FunctionRules | None = None,
        quota: CodeQuota | None = None,
        find_dependencies: FindDependencies = lambda project, ids: (),
        random: Random | None = None,
    ) -> None:
        super().__init__(region, random)
        self.changed: Signal[[int, Function | None]] = Signal()
        self.settings_changed: Signal[[int]] = Signal()
        self.quota = quota or CodeQuota()
        self._store, self._codes, self._clock, self._rules = store, codes, clock, rules or FunctionRules()
        self.limits = self._rules.limits
        self._find_dependencies = find_dependencies
        self._changing = anyio.Lock()

    async def load(self, keep: Collection[str] = ()) -> None:
        """Read all functions from the store, then remove code packages from disk that no function uses.

        ``keep`` names further packages to keep, by their SHA-256 in hexadecimal.
        """
        functions, settings = await self._store.load()
        for function in functions:
            self.index_function(function)
        self._settings = dict(settings)
        await self._codes.sweep({*keep, *(sha256 for function in functions for sha256 in function.packages)})

    def packages_of(self, project: str) -> Iterator[CodePackage]:
        """Yield the code package of each function version of a project, and its dependencies' packages in functions.

        Published versions keep packages of dependencies that the dependencies themselves no longer have.
        """
        for function in self.all():
            if function.project == project:
                yield function.code
            yield from (dependency.code for dependency in function.dependencies if dependency.project == project)

    # --- changing -------------------------------------------------------------------------------------------

    async def create(self, draft: Function, source: CodeSource, condition: Condition = ALWAYS) -> Function:
        """Store a new function with the fields of ``draft`` and the code of ``source``. Return the stored function.

        Values of ``draft`` for id, version, revision, code and times are ignored. If the function exists and belongs to
        another app than that of ``condition``, the error says so.
        """
        draft = msgspec.structs.replace(draft, details=condition.applied(draft.details, draft))
        self._check(draft)
        self._check_room(draft, condition)
        await self._check_machine(draft.runtime)
        with self.quota.claims(draft.project) as admit:
            code = await self._codes.add(
                source, draft.project, handler=draft.handler, runtime=draft.runtime, admit=admit
            )
            return await self._create(msgspec.structs.replace(draft, code=code), condition)

    async def _create(self, draft: Function, condition: Condition) -> Function:
        async with self.changing():
            self._check_room(draft, condition)
            now = self._clock.now()
            draft = self._with_dependencies(draft, draft.details)
            function_id = await self._store.new_function_id()
            function = msgspec.structs.replace(
                draft, function_id=function_id, version=LATEST, revision=1, created_at=now, modified_at=now
            )
            await self._put(function)
        return function

    async def update_code(
        self, urn: FunctionUrn, source: CodeSource, details: dict[str, Any], condition: Condition = ALWAYS
    ) -> Function:
        """Replace the code of ``latest``, and merge ``details`` into the stored ones. Return the changed function.

        Raises the errors of ``condition``.
        """
        old = self._changeable(urn)
        condition.check(old)
        with self.quota.claims(old.project, replaced=old.code.sha256) as admit:
            code = await self._codes.add(source, old.project, handler=old.handler, runtime=old.runtime, admit=admit)
            return await self.update(urn, {"code": code, "details": details}, condition)

    async def update(self, urn: FunctionUrn, changes: dict[str, Any], condition: Condition = ALWAYS) -> Function:
        """Set the fields of ``latest`` that ``changes`` names, and return the changed function.

        Entries of ``details`` are merged into the stored ones; an entry with the value UNSET is removed. Raises the
        errors of ``condition``.
        """
        async with self.changing():
            old = self._changeable(urn)
            given = condition.applied(changes.get("details", {}), old)
            details = {name: value for name, value in {**old.details, **given}.items() if value is not UNSET}
            changes = {**changes, "details": details, "modified_at": self._clock.now()}
            function = self._with_dependencies(msgspec.structs.replace(old, **changes), given)
            if not equal_for_instances(old, function):
                function = msgspec.structs.replace(function, revision=self.next_revision(old.function_id))
            self._check(function)
            if function.runtime != old.runtime:
                await self._check_machine(function.runtime)
            await self._put(function)
        return function

    async def limit(self, urn: FunctionUrn, max_instances: int) -> Function:
        """Set the maximum number of instances of all versions of a function. Return the version that ``urn`` names."""
        await self.update(_latest(urn), {"max_instances": max_instances})
        return self.find(urn)

    async def collect(self, urn: FunctionUrn, collected: bool) -> None:
        """Mark the function as a favourite of its owner ("collected" in the API), or remove the mark."""
        self.find(urn)
        await self.update(_latest(urn), {"collected": collected})

    async def delete(self, urn: FunctionUrn, condition: Condition = ALWAYS) -> None:
        """Delete a function with all versions, aliases, settings, and resources such as triggers.

        The discarder, which is connected to ``changed``, ends its waiting invocations.
        """
        async with self.changing():
            function = self.find(_latest(urn))
            condition.check(function)
            await self._store.delete_function(function.function_id)
            self.unindex_function(function)
            self.changed(function.function_id, None)

    async def put_settings(
        self, urn: FunctionUrn, settings: AsyncSettings, *, keep_rules: bool = False
    ) -> AsyncSettings:
        """Replace the asynchronous settings of the version that ``urn`` names. Return the stored settings.

        Fields that ``settings`` leaves out get their defaults. If ``keep_rules``, the retry rules stay. Raises
        InvalidField if a value is invalid, if ``urn`` names an alias, or if the destinations form a loop.
        """
        async with self.changing():
            function = self._version(urn)
            old = self.settings_of(function.function_id, function.version)
            if keep_rules and old is not None:
                settings = msgspec.structs.replace(settings, retry_rules=old.retry_rules)
            check_settings(settings, function, self._region, self._rules.check_destination)
            self._check_loop(name_of(function), function_targets(settings, self._region, function.project))
            now = self._clock.now()
            settings = msgspec.structs.replace(settings, created_at=old.created_at if old else now, modified_at=now)
            await self._store.put_settings(function.function_id, function.version, settings)
            self.index_settings(function, settings)
            self.settings_changed(function.function_id)
        return settings

    async def delete_settings(self, urn: FunctionUrn) -> None:
        async with self.changing():
            function = self._version(urn)
            self.show_settings(urn)
            await self._store.delete_settings(function.function_id, function.version)
            self.index_settings(function, None)
            self.settings_changed(function.function_id)

    async def replace_dependency(self, new: Dependency, row: StoredResource) -> None:
        """Store a changed version of a dependency, and replace it in each function whose ``latest`` uses it.

        ``row`` is its row in the store. All is one transaction. Instances are started anew if its package is another
        one. Published versions keep their copies, and so do functions of another runtime than the dependency's.
        """
        async with self.changing():
            users = [user for user in self.all() if user.version == LATEST and user.runtime == new.runtime]
            changed = [
                self._with_copy(user, new) for user in users if any(used.id == new.id for used in user.dependencies)
            ]
            await self._store.put_functions(changed, [row])
            for function in changed:
                self.index_function(function)
                self.changed(function.function_id, function)

    # --- used by Versions and Aliases -----------------------------------------------------------------------

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Exclude other changes of the catalog while the block runs. Cancellation is deferred until the block ends."""
        # A caller cancelled between the write to the store and the change in memory would leave them different.
        async with self._changing:
            with anyio.CancelScope(shield=True):
                yield

    def notify(self, function_id: int) -> None:
        """Announce a change of a function's versions or aliases. Called by ``Versions`` and ``Aliases``."""
        self.changed(function_id, self.resolve(function_id, LATEST))

    # --- inside ---------------------------------------------------------------------------------------------

    async def _put(self, function: Function) -> None:
        """Store a function's ``latest``, update the index in memory, and announce the change.

        The maximum number of instances is copied to the published versions.
        """
        limit = function.max_instances
        others = [version for version in self.versions(function.function_id) if version.version != LATEST]
        changed = [
            msgspec.structs.replace(other, max_instances=limit) for other in others if other.max_instances != limit
        ]
        await self._store.put_functions([function, *changed])
        for stored in (function, *changed):
            self.index_function(stored)
        self.changed(function.function_id, function)

    def _version(self, urn: FunctionUrn) -> Function:
        function = self.find(urn)
        if urn.alias is not None:
            raise InvalidField("version", urn.qualifier, "settings belong to a version, not an alias: name the version")
        return function

    def _changeable(self, urn: FunctionUrn) -> Function:
        """Return the ``latest`` version that ``urn`` names.

        Raise InvalidField if it names a published version or alias.
        """
        function = self.find(urn)
        if urn.qualifier != LATEST:
            raise InvalidField("version", urn.qualifier, "only latest can be changed")
        return function

    def _check(self, function: Function) -> None:
        check_function(function, function.urn(self._region), self._rules)
        folders_of(function, self._rules.folders)  # raises

    async def _check_machine(self, runtime: str) -> None:
        """Raise InvalidField unless this machine has an interpreter for the runtime."""
        if self._rules.check_runtime is not None:
            await self._rules.check_runtime(runtime)

    def _with_dependencies(self, function: Function, details: dict[str, Any]) -> Function:
        """Return the function with the dependencies whose ids ``details`` has in ``depend_version_list``.

        Without this entry, the dependencies stay. A function contains copies of its dependencies. Raises BadDependency
        if a dependency is for another runtime, UnknownDependency for an unknown id, or TooManyUsed.
        """
        ids = details.get("depend_version_list")
        if ids is not None:
            if len(ids) > self.limits.function_dependencies:
                raise TooManyUsed(self.limits.function_dependencies)
            function = msgspec.structs.replace(function, dependencies=self._find_dependencies(function.project, ids))
        check_dependencies(function)
        return function

    def _with_copy(self, function: Function, new: Dependency) -> Function:
        """Return the function with ``new`` in place of its copy of the same version of the dependency."""
        copies = tuple(new if dependency.id == new.id else dependency for dependency in function.dependencies)
        same = [copy.code.sha256 for copy in copies] == [dependency.code.sha256 for dependency in function.dependencies]
        revision = function.revision if same else self.next_revision(function.function_id)
        now = self._clock.now()
        return msgspec.structs.replace(function, dependencies=copies, revision=revision, modified_at=now)

    def _check_room(self, draft: Function, condition: Condition) -> None:
        if (existing := self._ids.get(name_of(draft))) is not None:
            condition.check(self._functions[existing][LATEST])
            raise FunctionExists(draft.name)
        if len(self.list(draft.project)) >= self.limits.functions:
            raise TooManyFunctions(self.limits.functions)

    def _check_loop(self, origin: Name, targets: set[Name]) -> None:
        """Raise InvalidField if outcomes of ``origin`` would return to it.

        ``targets`` are the functions that receive outcomes of ``origin``. Their own destinations are followed.
        """
        seen: set[Name] = set()
        while targets:
            name = targets.pop()
            if name == origin:
                raise InvalidField("destination_config", ":".join(origin[1:]), "destinations must not lead back here")
            seen.add(name)
            targets |= self._targets_of(name) - seen

    def _targets_of(self, name: Name) -> set[Name]:
        settings = (settings for _, settings in self._settings_by_version(self._ids.get(name, 0)))
        return {target for each in settings for target in function_targets(each, self._region, name[0])}


def alias_resource(function_id: int, name: str, body: bytes = b"") -> StoredResource:
    """Return the row of the store that contains an alias. Deleting the row needs no ``body``."""
    return StoredResource(kind=ALIAS, owner=f"function:{function_id}", id=name, body=body)


def _latest(urn: FunctionUrn) -> FunctionUrn:
    return msgspec.structs.replace(urn, qualifier=LATEST)
