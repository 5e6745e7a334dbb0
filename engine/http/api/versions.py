"""Versions of a function (FunctionGraph API: CreateFunctionVersion and others), and its ``collected`` flag.

The operations in ``functions.py`` show and delete a version if their URN includes one.
"""

from __future__ import annotations

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.functions.versions import Versions
from engine.http.api.function_replies import version_reply
from engine.http.api.function_shapes import FunctionReply
from engine.http.api.large_replies import list_reply
from engine.http.api.paging import page_of
from engine.http.api.routing import BASE, Call, Resource
from engine.model import Function
from engine.model.limits import Description


class PublishBody(Struct, frozen=True, kw_only=True):
    version: str = ""
    description: Description = ""
    digest: str = ""


class VersionList(Struct, frozen=True, kw_only=True):
    versions: list[FunctionReply]
    next_marker: int
    count: int


class VersionsApi:
    def __init__(self, catalog: Catalog, versions: Versions, region: str) -> None:
        self._catalog, self._versions, self._region = catalog, versions, region

    def resources(self) -> list[Resource]:
        function = f"{BASE}/functions/{{function_urn}}"
        return [
            Resource(path=f"{function}/versions", methods={"POST": self.publish, "GET": self.list_all}),
            Resource(path=f"{function}/collect/{{state}}", methods={"PUT": self.collect}),
        ]

    async def publish(self, call: Call) -> Reply:
        urn = call.urn
        self._catalog.find(urn)
        body = await call.read(PublishBody, empty=PublishBody())
        version = await self._versions.publish(urn, name=body.version, description=body.description, digest=body.digest)
        return json_reply(self._reply(version))

    async def list_all(self, call: Call) -> Reply:
        page = page_of(call, self._catalog.versions(self._catalog.find(call.urn).function_id), "maxitems")
        versions = (self._reply(version) for version in page.items)
        return await list_reply("versions", versions, next_marker=page.next_marker, count=page.count)

    async def collect(self, call: Call) -> Reply:
        """Set or clear the function's ``collected`` flag, by which a user marks a favourite.

        The flag is stored and has no effect in the engine.
        """
        state = call.part("state").lower()
        if state not in ("true", "false"):
            raise InvalidField("state", call.part("state"), "must be true or false")
        await self._catalog.collect(call.urn, state == "true")
        return Reply()

    def _reply(self, version: Function) -> FunctionReply:
        settings = self._catalog.settings_of(version.function_id, version.version)
        return version_reply(version, self._region, settings)
