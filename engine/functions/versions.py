"""Published versions: immutable copies of the code and configuration of ``latest``.

Publishing also copies the asynchronous settings of ``latest``. The copy can be changed independently afterwards.
Waiting invocations of a deleted version are discarded when they are due, even if a later version has the same name by
then.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime

import msgspec

from engine.code.store import CodeStore
from engine.errors import InvalidField, NothingToPublish, TooManyVersions, VersionExists, VersionInUse
from engine.functions.alias_rules import check_version_name
from engine.functions.catalog import BoundTo, Catalog, alias_resource
from engine.functions.function_rules import ALWAYS, Condition, equal_as_versions
from engine.model import CodePackage, Function
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import DESCRIPTION
from engine.model.urn import LATEST, FunctionUrn
from engine.protocols import CatalogStore


class Versions:
    """Operations on the published versions of all functions.

    Deleting a version also deletes the resources that ``bound_to`` returns for it, in the same transaction.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: CatalogStore,
        codes: CodeStore,
        clock: Clock,
        identity: Identity,
        bound_to: BoundTo,
    ) -> None:
        self._catalog, self._store, self._codes, self._clock = catalog, store, codes, clock
        self._identity, self._bound_to = identity, bound_to

    def load(self) -> None:
        """Make the keys of later invocations larger than the ``created_key`` of every version.

        Otherwise a new invocation could seem older than its version and be discarded. The engine calls this method at
        its start, after the catalog is loaded.
        """
        self._identity.pass_by(max((function.created_key for function in self._catalog.all()), default=0))

    async def publish(self, urn: FunctionUrn, *, name: str = "", description: str = "", digest: str = "") -> Function:
        """Publish ``latest`` as a version called ``name``.

        If ``name`` is empty, the name is made from the current time.

        ``digest``, if not empty, must match the package of the code: its MD5, as FunctionGraph documents; its SHA-512,
        which the API shows; or its SHA-256. Raises VersionExists if the function has a version of this name;
        NothingToPublish if ``latest`` equals the newest version; TooManyVersions if the function has the maximum number
        of versions; InvalidField for an invalid name, description or digest, or if ``urn`` does not name ``latest``.
        """
        if name:
            check_version_name(name)
        if len(description) > DESCRIPTION:
            raise InvalidField("description", description, f"may have {DESCRIPTION} characters")
        # Reading a large package is slow, so it happens outside the lock.
        expected = await self._checked(self._latest(urn).code, digest.lower()) if digest else None
        async with self._catalog.changing():
            latest = self._latest(urn)
            if expected not in (None, latest.code):
                raise InvalidField("digest", digest, "the code was changed meanwhile: publish again with its digest")
            name = self._free(latest, name)
            settings = self._catalog.settings_of(latest.function_id, LATEST)
            version = self._version(latest, name, description)
            await self._store.publish(version, settings)
            self._catalog.index_function(version)
            self._catalog.index_settings(version, settings)
            self._catalog.notify(version.function_id)
        return version

    async def delete(self, urn: FunctionUrn, condition: Condition = ALWAYS) -> None:
        """Delete a published version, its asynchronous settings, its triggers, and aliases whose main version it is.

        Triggers of these aliases are deleted too. Raises InvalidField if ``urn`` names ``latest``; VersionInUse while
        the version is an extra version of an alias.
        """
        async with self._catalog.changing():
            version = self._catalog.find(urn)
            if version.version == LATEST:
                hint = "latest cannot be deleted alone: leave the version out to delete the function"
                raise InvalidField("version", LATEST, hint)
            condition.check(self._catalog.find(msgspec.structs.replace(urn, qualifier=LATEST)))
            function_id = version.function_id
            resources, names = [*self._bound_to(function_id, version.version)], []
            for alias in self._catalog.aliases(function_id):
                if version.version in (*alias.weights, *alias.strategies):
                    raise VersionInUse(version.version, alias.name)
                if alias.version == version.version:
                    resources += [*self._bound_to(function_id, f"!{alias.name}")]
                    resources += [alias_resource(function_id, alias.name)]
                    names.append(alias.name)
            await self._store.delete_version(function_id, version.version, resources)
            self._catalog.unindex_version(version)
            for name in names:
                self._catalog.unindex_alias(function_id, name)
            self._catalog.notify(function_id)

    # --- inside ---------------------------------------------------------------------------------------------

    def _latest(self, urn: FunctionUrn) -> Function:
        latest = self._catalog.find(urn)
        if urn.qualifier != LATEST:
            raise InvalidField("version", urn.qualifier, "only latest can be published")
        return latest

    def _free(self, latest: Function, name: str) -> str:
        """Return ``name``, or a name made from the current time if ``name`` is empty.

        Raises VersionExists if the function has a version of this name; NothingToPublish if ``latest`` equals the
        newest version; TooManyVersions if the function has the maximum number of versions.
        """
        published = [version for version in self._catalog.versions(latest.function_id) if version.version != LATEST]
        taken = {version.version for version in published}
        if name in taken:
            raise VersionExists(name)
        if published and equal_as_versions(latest, published[-1]):
            raise NothingToPublish(published[-1].version)
        if len(published) >= self._catalog.limits.versions:
            raise TooManyVersions(self._catalog.limits.versions)
        return name or self._time_name(taken)

    def _time_name(self, taken: Container[str]) -> str:
        moment = self._clock.now()
        while (name := f"{datetime.fromtimestamp(moment, UTC):v%Y%m%d-%H%M%S}") in taken:
            moment += 1
        return name

    def _version(self, latest: Function, name: str, description: str) -> Function:
        now = self._clock.now()
        return msgspec.structs.replace(
            latest,
            version=name,
            version_description=description,
            revision=self._catalog.next_revision(latest.function_id),
            created_key=self._identity.next_key(now),
            created_at=now,
            modified_at=now,
        )

    async def _checked(self, code: CodePackage, digest: str) -> CodePackage:
        if digest not in (code.digest, code.sha256) and digest != (md5 := await self._codes.md5(code)):
            hint = f"the code of latest has MD5 {md5}: check that it is the code you want to publish"
            raise InvalidField("digest", digest, hint)
        return code
