"""Dependencies (packages of libraries for functions) and their versions.

FunctionGraph API: CreateDependencyVersion and others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from engine.asgi.wire import Reply, json_reply
from engine.code.store import PACKAGE_LIMIT, CodeStore
from engine.errors import BadDependency
from engine.http.api.paging import page_of
from engine.http.api.routing import BASE, BODY_LIMIT, Call, Resource
from engine.model import Dependency
from engine.model.limits import Description, Link
from engine.resources.dependencies import Dependencies, NewDependency
from engine.resources.dependency_rules import NAME, NAME_RULE

_BODY_LIMIT = PACKAGE_LIMIT * 4 // 3 + BODY_LIMIT


class CreateDependencyBody(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description=NAME_RULE)]
    runtime: str
    depend_type: Annotated[str, Meta(extra_json_schema={"enum": ["zip", "obs"]})]
    depend_file: str = ""
    depend_link: Link = ""
    description: Description = ""


class DependencyReply(Struct, frozen=True, kw_only=True):
    id: str
    dep_id: str
    name: str
    version: int
    owner: str
    runtime: str
    etag: str
    size: int
    link: str
    file_name: str
    description: str
    last_modified: int
    is_shared: bool


class DependencyList(Struct, frozen=True, kw_only=True):
    dependencies: list[DependencyReply]
    count: int
    next_marker: int


class DependenciesApi:
    def __init__(self, dependencies: Dependencies, codes: CodeStore) -> None:
        self._dependencies, self._codes = dependencies, codes

    def resources(self) -> list[Resource]:
        dependencies = f"{BASE}/dependencies"
        versions = f"{dependencies}/{{depend_id}}/version"
        return [
            Resource(path=dependencies, methods={"GET": self.list_all}),
            Resource(path=f"{dependencies}/version", methods={"POST": self.create}),
            Resource(path=versions, methods={"GET": self.list_versions}),
            Resource(path=f"{versions}/{{version}}", methods={"GET": self.show, "DELETE": self.delete}),
        ]

    async def create(self, call: Call) -> Reply:
        project = call.project
        async with self._codes.receiving("depend_file") as upload:
            body = await call.read_code(CreateDependencyBody, upload, _BODY_LIMIT, error=BadDependency)
            new = NewDependency(
                name=body.name,
                runtime=body.runtime,
                kind=body.depend_type,
                file=body.depend_file,
                received=upload.code(body.depend_file),
                link=body.depend_link,
                description=body.description,
            )
            return json_reply(dependency_reply(await self._dependencies.create(project, new)))

    async def list_all(self, call: Call) -> Reply:
        """List the dependencies of the project.

        A query for public dependencies, which the vendor offers to all projects, returns an empty list: this engine has
        none.
        """
        found = self._dependencies.list(call.project, name_part=call.text("name"), runtime=call.text("runtime"))
        public = call.text("ispublic") == "true" or call.text("dependency_type") == "public"
        return _page(call, () if public else found)

    async def list_versions(self, call: Call) -> Reply:
        return _page(call, self._dependencies.versions(call.project, call.part("depend_id")))

    async def show(self, call: Call) -> Reply:
        found = self._dependencies.show(call.project, call.part("depend_id"), call.part("version"))
        return json_reply(dependency_reply(found))

    async def delete(self, call: Call) -> Reply:
        await self._dependencies.delete(call.project, call.part("depend_id"), call.part("version"))
        return Reply(status=204)


def dependency_reply(dependency: Dependency) -> DependencyReply:
    return DependencyReply(
        id=dependency.id,
        dep_id=dependency.dep_id,
        name=dependency.name,
        version=dependency.version,
        owner=dependency.project,
        runtime=dependency.runtime,
        etag=dependency.etag,
        size=dependency.code.size,
        link=dependency.code.url,
        file_name=dependency.code.filename,
        description=dependency.description,
        last_modified=int(dependency.created_at),
        is_shared=False,
    )


def _page(call: Call, found: Sequence[Dependency]) -> Reply:
    """Return the reply with the page of ``found`` that the query selects.

    The query parameters ``limit`` and ``maxitems`` both set the largest number of entries.
    """
    page = page_of(call, found, "limit", "maxitems")
    shown = [dependency_reply(dependency) for dependency in page.items]
    return json_reply(DependencyList(dependencies=shown, count=page.count, next_marker=page.next_marker))
