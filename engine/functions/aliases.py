"""Aliases: names for versions of a function, in memory and on disk.

Validation of an alias and the choice of a version for a request are in ``alias_rules``. An alias always names existing
versions: deleting its main version deletes the alias, and its extra versions cannot be deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.errors import AliasExists, AliasInUse, TooManyAliases, VersionTaken
from engine.functions.alias_rules import check_alias
from engine.functions.catalog import ALIAS, BoundTo, Catalog, alias_resource
from engine.model import Alias
from engine.model.clock import Clock
from engine.model.urn import FunctionUrn
from engine.protocols import ResourceStore
from engine.protocols.catalog import decode_resource


class Aliases:
    """Operations on the aliases of all functions. ``load`` must run before the others, after the catalog is loaded.

    An alias cannot be deleted while ``bound_to`` returns resources for it.
    """

    def __init__(self, catalog: Catalog, store: ResourceStore, clock: Clock, bound_to: BoundTo) -> None:
        self._catalog, self._store, self._clock, self._bound_to = catalog, store, clock, bound_to

    async def load(self) -> None:
        for row in await self._store.load(ALIAS):
            function_id = int(row.owner.removeprefix("function:"))
            self._catalog.index_alias(function_id, decode_resource(row, Alias))

    def list(self, urn: FunctionUrn) -> Sequence[Alias]:
        return self._catalog.aliases(self._id(urn))

    def get(self, urn: FunctionUrn, name: str) -> Alias:
        return self._catalog.alias_of(self._id(urn), name)

    async def create(self, urn: FunctionUrn, draft: Alias) -> Alias:
        async with self._catalog.changing():
            function_id = self._id(urn)
            names = [alias.name for alias in self._catalog.aliases(function_id)]
            if draft.name in names:
                raise AliasExists(draft.name)
            if len(names) >= self._catalog.limits.aliases:
                raise TooManyAliases(self._catalog.limits.aliases)
            return await self._put(function_id, draft)

    async def update(self, urn: FunctionUrn, draft: Alias) -> Alias:
        """Replace the function's alias of the same name as ``draft``. Fields that ``draft`` leaves out become empty.

        Raises UnknownAlias if the function has no such alias, VersionTaken if another alias has the same main version,
        or an error of ``check_alias``.
        """
        async with self._catalog.changing():
            function_id = self._id(urn)
            self._catalog.alias_of(function_id, draft.name)
            return await self._put(function_id, draft)

    async def delete(self, urn: FunctionUrn, name: str) -> None:
        """Delete an alias. Invocations accepted through it run the version that was chosen at acceptance.

        Raises UnknownAlias if the function has no such alias, or AliasInUse while a trigger invokes the alias.
        """
        async with self._catalog.changing():
            function_id = self._id(urn)
            self._catalog.alias_of(function_id, name)
            if self._bound_to(function_id, f"!{name}"):
                raise AliasInUse(name)
            resource = alias_resource(function_id, name)
            await self._store.delete(resource.kind, resource.owner, resource.id)
            self._catalog.unindex_alias(function_id, name)
            self._catalog.notify(function_id)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _put(self, function_id: int, draft: Alias) -> Alias:
        check_alias(draft, {version.version for version in self._catalog.versions(function_id)})
        for other in self._catalog.aliases(function_id):
            if other.version == draft.version and other.name != draft.name:
                raise VersionTaken(draft.version, other.name)
        alias = msgspec.structs.replace(draft, modified_at=self._clock.now())
        await self._store.put(alias_resource(function_id, alias.name, msgspec.json.encode(alias)))
        self._catalog.index_alias(function_id, alias)
        self._catalog.notify(function_id)
        return alias

    def _id(self, urn: FunctionUrn) -> int:
        return self._catalog.find(urn).function_id
