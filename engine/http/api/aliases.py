"""Aliases of a function's versions (FunctionGraph API: CreateVersionAlias and others)."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import zoned_time
from engine.model import Alias, Strategy
from engine.model.limits import Description, Percent
from engine.model.urn import FunctionUrn


class AliasBody(Struct, frozen=True, kw_only=True):
    """Body of a PUT request, which replaces the whole alias: fields absent from the body become empty."""

    version: str
    description: Description = ""
    additional_version_weights: dict[str, Percent] | None = None
    additional_version_strategy: dict[str, Strategy] | None = None


class CreateAliasBody(AliasBody, frozen=True, kw_only=True):
    name: str


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


class AliasesApi:
    def __init__(self, catalog: Catalog, aliases: Aliases, region: str) -> None:
        self._catalog, self._aliases, self._region = catalog, aliases, region

    def resources(self) -> list[Resource]:
        aliases = f"{BASE}/functions/{{function_urn}}/aliases"
        one = {"GET": self.show, "PUT": self.update, "DELETE": self.delete}
        return [
            Resource(path=aliases, methods={"POST": self.create, "GET": self.list_all}),
            Resource(path=f"{aliases}/{{alias_name}}", methods=one),
        ]

    async def create(self, call: Call) -> Reply:
        urn = call.urn
        self._catalog.find(urn)
        body = await call.read(CreateAliasBody)
        return json_reply(self._reply(urn, await self._aliases.create(urn, _alias(body.name, body))))

    async def list_all(self, call: Call) -> Reply:
        urn = call.urn
        return json_reply([self._reply(urn, alias) for alias in self._aliases.list(urn)])

    async def show(self, call: Call) -> Reply:
        urn = call.urn
        return json_reply(self._reply(urn, self._aliases.get(urn, call.part("alias_name"))))

    async def update(self, call: Call) -> Reply:
        urn, name = call.urn, call.part("alias_name")
        self._aliases.get(urn, name)
        body = await call.read(AliasBody)
        return json_reply(self._reply(urn, await self._aliases.update(urn, _alias(name, body))))

    async def delete(self, call: Call) -> Reply:
        await self._aliases.delete(call.urn, call.part("alias_name"))
        return Reply(status=204)

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
