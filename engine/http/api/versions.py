"""Versions of a function and aliases of them (FunctionGraph API: CreateFunctionVersion, CreateVersionAlias and others).

The operations in ``functions.py`` show and delete a version if their URN includes one.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.versions import Versions
from engine.http.api.function_replies import version_reply
from engine.http.api.function_shapes import FunctionReply
from engine.http.api.large_replies import list_reply
from engine.http.api.paging import ITEMS, page_of
from engine.http.api.routing import FUNCTION, ApiFamily, BodyCall, Call, Subject, operation, read
from engine.http.api.times import zoned_time
from engine.model import Alias, Function, Strategy
from engine.model.limits import Description, Percent, words
from engine.model.urn import LATEST, FunctionUrn

_VERSIONS = f"{FUNCTION}/versions"
_ALIASES = f"{FUNCTION}/aliases"
_ALIAS = f"{_ALIASES}/{{alias_name}}"


class PublishBody(Struct, frozen=True, kw_only=True):
    version: Annotated[
        str,
        words("Name", "Letters, digits, - _ and . Empty means a name made from the time.", example="v20260131-180000"),
    ] = ""
    description: Description = ""
    digest: Annotated[str, Meta(extra={"hidden": True})] = ""


class VersionList(Struct, frozen=True, kw_only=True):
    versions: list[FunctionReply]
    next_marker: int
    count: int


class VersionsApi(ApiFamily):
    subject = Subject("version", ("func_urn",), ("version",))

    def __init__(self, catalog: Catalog, versions: Versions, region: str) -> None:
        self._catalog, self._versions, self._region = catalog, versions, region

    @operation("CreateFunctionVersion", "POST", _VERSIONS, PublishBody, FunctionReply, optional=True)
    async def publish(self, call: BodyCall[PublishBody]) -> FunctionReply:
        urn, body = call.urn, await call.read()
        if body.version and urn.qualifier == body.version:  # Serverless Devs names the new version in the URN as well
            urn = replace(urn, qualifier=LATEST, qualified=False)
        version = await self._versions.publish(urn, name=body.version, description=body.description, digest=body.digest)
        return self._reply(version)

    @read("ListFunctionVersions", _VERSIONS, VersionList, query=ITEMS)
    async def list_all(self, call: Call) -> Reply:
        page = page_of(call, self._catalog.versions(self._catalog.find(call.urn).function_id), "maxitems")
        versions = (self._reply(version) for version in page.items)
        return await list_reply("versions", versions, next_marker=page.next_marker, count=page.count)

    def _reply(self, version: Function) -> FunctionReply:
        settings = self._catalog.settings_of(version.function_id, version.version)
        return version_reply(version, self._region, settings)


class AliasBody(Struct, frozen=True, kw_only=True):
    """Body of a PUT request, which replaces the whole alias: fields absent from the body become empty."""

    version: Annotated[str, words("Version", "Runs the requests that no further version takes.")]
    description: Annotated[Description, Meta(extra={"control": "area"})] = ""
    additional_version_weights: dict[str, Percent] | None = None
    additional_version_strategy: dict[str, Strategy] | None = None


class CreateAliasBody(AliasBody, frozen=True, kw_only=True):
    name: Annotated[str, words("Name", "A letter, then letters, digits, - _ and . It never changes.")]


class AliasReply(Struct, frozen=True, kw_only=True):
    """Alias as replies describe it.

    ``additional_version_…`` fields without entries are left out, because Terraform treats ``{}`` as a changed value.
    """

    name: str
    version: str
    description: str
    last_modified: str
    alias_urn: str
    additional_version_weights: dict[str, int] | UnsetType = UNSET
    additional_version_strategy: dict[str, Strategy] | UnsetType = UNSET


class AliasesApi(ApiFamily):
    subject = Subject("alias", ("alias_urn", "alias_name"), ("alias_name", "name"))

    def __init__(self, catalog: Catalog, aliases: Aliases, region: str) -> None:
        self._catalog, self._aliases, self._region = catalog, aliases, region

    @operation("CreateVersionAlias", "POST", _ALIASES, CreateAliasBody, AliasReply)
    async def create(self, call: BodyCall[CreateAliasBody]) -> AliasReply:
        urn = call.urn
        self._catalog.find(urn)
        body = await call.read()
        return self._reply(urn, await self._aliases.create(urn, _alias(body.name, body)))

    @read("ListVersionAliases", _ALIASES, list[AliasReply])
    async def list_all(self, call: Call) -> list[AliasReply]:
        urn = call.urn
        return [self._reply(urn, alias) for alias in self._aliases.list(urn)]

    @read("ShowVersionAlias", _ALIAS, AliasReply)
    async def show(self, call: Call) -> AliasReply:
        urn = call.urn
        return self._reply(urn, self._aliases.get(urn, call.part("alias_name")))

    @operation("UpdateVersionAlias", "PUT", _ALIAS, AliasBody, AliasReply)
    async def update(self, call: BodyCall[AliasBody]) -> AliasReply:
        urn, name = call.urn, call.part("alias_name")
        self._aliases.get(urn, name)
        body = await call.read()
        return self._reply(urn, await self._aliases.update(urn, _alias(name, body)))

    @operation("DeleteVersionAlias", "DELETE", _ALIAS, status=204)
    async def delete(self, call: Call) -> None:
        await self._aliases.delete(call.urn, call.part("alias_name"))

    def _reply(self, urn: FunctionUrn, alias: Alias) -> AliasReply:
        function = self._catalog.find(urn).urn(self._region).function
        return AliasReply(
            name=alias.name,
            version=alias.version,
            description=alias.description,
            last_modified=zoned_time(alias.modified_at),
            alias_urn=f"{function}:!{alias.name}",
            additional_version_weights=alias.weights or UNSET,
            additional_version_strategy=alias.strategies or UNSET,
        )


def _alias(name: str, body: AliasBody) -> Alias:
    return Alias(
        name=name,
        version=body.version,
        description=body.description,
        weights=body.additional_version_weights or {},
        strategies=body.additional_version_strategy or {},
    )
