"""Published versions: the code and configuration of ``latest`` at one moment, which stay as they are.

A version comes with a copy of the asynchronous settings of ``latest``, which are its own from then on. Once it is
deleted, invocations that wait for it are discarded when their turn comes, also if there is another version of its
name by then.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime

import msgspec

from engine.code.store import CodeStore
from engine.errors import InvalidField, NothingToPublish, TooManyVersions, VersionExists, VersionInUse
from engine.functions.alias_rules import check_version_name
from engine.functions.catalog import Catalog, alias_resource
from engine.functions.function_rules import publish_alike
from engine.model import CodePackage, Function
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import DESCRIPTION
from engine.model.urn import LATEST, FunctionUrn
from engine.protocols import CatalogStore

MAX_VERSIONS = 20  #: published ones per function


class Versions:
    def __init__(
        self, catalog: Catalog, store: CatalogStore, codes: CodeStore, clock: Clock, identity: Identity
    ) -> None:
        self._catalog, self._store, self._codes, self._clock = catalog, store, codes, clock
        self._identity = identity

    def load(self) -> None:
        """Once, after the catalog: no invocation must seem older than the version that it is for."""
        self._identity.pass_by(max((function.created_key for function in self._catalog.all()), default=0))

    async def publish(self, urn: FunctionUrn, *, name: str = "", description: str = "", digest: str = "") -> Function:
        """Freeze ``latest`` under ``name``, or one made of the time of day.

        ``digest`` says which code is meant: the MD5 of its package, as documented, or the SHA-512 that functions show.
        Raises VersionExists, NothingToPublish, TooManyVersions, InvalidField.
        """
        if name:
            check_version_name(name)
        if len(description) > DESCRIPTION:
            raise InvalidField("description", description, f"may have {DESCRIPTION} characters")
        # Reading a large package takes its time, so it holds up no other change.
        meant = await self._checked(self._latest(urn).code, digest.lower()) if digest else None
        async with self._catalog.changing():
            latest = self._latest(urn)
            if meant not in (None, latest.code):
                raise InvalidField("digest", digest, "the code was changed meanwhile: publish again if you mean that")
            name = self._free(latest, name)
            settings = self._catalog.settings_of(latest.function_id, LATEST)
            version = self._version(latest, name, description)
            await self._store.publish(version, settings)
            self._catalog.show(version)
            self._catalog.show_settings_of(version, settings)
            self._catalog.tell(version.function_id)
        return version

    async def delete(self, urn: FunctionUrn) -> None:
        """With its settings and what is bound to it, such as triggers; an alias whose main version it is goes as well.

        Raises VersionInUse while it is an alias's extra version.
        """
        async with self._catalog.changing():
            version = self._catalog.find(urn)
            if version.version == LATEST:
                hint = "latest cannot be deleted alone: leave the version out to delete the function"
                raise InvalidField("version", LATEST, hint)
            function_id = version.function_id
            gone, names = [*self._catalog.bound_to(function_id, version.version)], []
            for alias in self._catalog.aliases(function_id):
                if version.version in (*alias.weights, *alias.strategies):
                    raise VersionInUse(version.version, alias.name)
                if alias.version == version.version:
                    gone += [*self._catalog.bound_to(function_id, f"!{alias.name}")]
                    gone += [alias_resource(function_id, alias.name)]
                    names.append(alias.name)
            await self._store.delete_version(function_id, version.version, gone)
            self._catalog.hide_version(version)
            for name in names:
                self._catalog.hide_alias(function_id, name)
            self._catalog.tell(function_id)

    # --- inside ---------------------------------------------------------------------------------------------

    def _latest(self, urn: FunctionUrn) -> Function:
        latest = self._catalog.find(urn)
        if urn.qualifier != LATEST:
            raise InvalidField("version", urn.qualifier, "only latest can be published")
        return latest

    def _free(self, latest: Function, name: str) -> str:
        """The name that the new version gets, if there may be one."""
        published = [one for one in self._catalog.versions(latest.function_id) if one.version != LATEST]
        taken = {one.version for one in published}
        if name in taken:
            raise VersionExists(name)
        if published and publish_alike(latest, published[-1]):
            raise NothingToPublish(published[-1].version)
        if len(published) >= MAX_VERSIONS:
            raise TooManyVersions(MAX_VERSIONS)
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
        if digest not in (code.digest, code.sha256) and digest != (found := await self._codes.md5(code)):
            hint = f"the code has MD5 {found}: it was changed, or is not what you meant to publish"
            raise InvalidField("digest", digest, hint)
        return code
