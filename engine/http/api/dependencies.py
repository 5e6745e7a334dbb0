"""Dependencies (packages of libraries for functions) and their versions.

FunctionGraph API: CreateDependencyVersion and others. Operations on a dependency as a whole, such as CreateDependency,
are older, and Terraform's resource ``fgs_dependency`` uses them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.code.store import CodeStore
from engine.errors import BadDependency
from engine.http.api.paging import ITEMS, page_of
from engine.http.api.routing import BASE, CODE_LIMIT, ApiFamily, BodyCall, Call, Subject, operation, read
from engine.model import Dependency
from engine.model.limits import Description, Link
from engine.resources.dependencies import NAME, NAME_RULE, Dependencies, NewDependency

PUBLIC = "public"  #: owner of shared dependencies, as the platform shows it

_DEPENDENCIES = f"{BASE}/dependencies"
_DEPENDENCY = f"{_DEPENDENCIES}/{{depend_id}}"
_VERSION = f"{_DEPENDENCY}/version/{{version}}"


class DependencyBody(Struct, frozen=True, kw_only=True):
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


class DependenciesApi(ApiFamily):
    subject = Subject("dependency", ("id", "depend_id"), ("name", "depend_id"))

    def __init__(self, dependencies: Dependencies, codes: CodeStore) -> None:
        self._dependencies, self._codes = dependencies, codes

    @operation(
        "CreateDependencyVersion",
        "POST",
        f"{_DEPENDENCIES}/version",
        DependencyBody,
        DependencyReply,
        limit=CODE_LIMIT,
        error=BadDependency,
    )
    async def create_version(self, call: BodyCall[DependencyBody]) -> DependencyReply:
        return self._version(await self._stored(call, partial(self._dependencies.create, call.project)))

    @read(
        "ListDependencies",
        _DEPENDENCIES,
        DependencyList,
        query=(*ITEMS, "limit", "ispublic", "dependency_type", "runtime", "name"),
    )
    async def list_all(self, call: Call) -> DependencyList:
        """List the newest version of each dependency of the project, and of those that all projects share.

        The query selects one of both kinds by ``dependency_type=private`` or ``public``, or by ``ispublic``.
        """
        kind = call.text("dependency_type") or {"true": "public", "false": "private"}.get(call.text("ispublic"), "")
        dependencies = self._dependencies.list(
            call.project, name_part=call.text("name"), runtime=call.text("runtime"), kind=kind
        )
        return _page(call, dependencies, self._whole)

    @read("ListDependencyVersion", f"{_DEPENDENCY}/version", DependencyList, query=(*ITEMS, "limit"))
    async def list_versions(self, call: Call) -> DependencyList:
        return _page(call, self._dependencies.versions(call.project, call.part("depend_id")), self._version)

    @read("ShowDependencyVersion", _VERSION, DependencyReply)
    async def show(self, call: Call) -> DependencyReply:
        dependency = self._dependencies.show(call.project, call.part("depend_id"), call.part("version"))
        return self._version(dependency)

    @operation("DeleteDependencyVersion", "DELETE", _VERSION, status=204)
    async def delete(self, call: Call) -> None:
        await self._dependencies.delete(call.project, call.part("depend_id"), call.part("version"))

    @operation(
        "CreateDependency",
        "POST",
        _DEPENDENCIES,
        DependencyBody,
        DependencyReply,
        limit=CODE_LIMIT,
        error=BadDependency,
        own=True,
    )
    async def create(self, call: BodyCall[DependencyBody]) -> DependencyReply:
        create = partial(self._dependencies.create, call.project, next_version=False)
        return self._whole(await self._stored(call, create))

    @read("ShowDependency", _DEPENDENCY, DependencyReply, own=True)
    async def show_newest(self, call: Call) -> DependencyReply:
        return self._whole(self._dependencies.versions(call.project, call.part("depend_id"))[0])

    @operation(
        "UpdateDependency",
        "PUT",
        _DEPENDENCY,
        DependencyBody,
        DependencyReply,
        limit=CODE_LIMIT,
        error=BadDependency,
        own=True,
    )
    async def update(self, call: BodyCall[DependencyBody]) -> DependencyReply:
        update = partial(self._dependencies.update, call.project, call.part("depend_id"))
        return self._whole(await self._stored(call, update))

    @operation("DeleteDependency", "DELETE", _DEPENDENCY, status=204, own=True)
    async def delete_all(self, call: Call) -> None:
        await self._dependencies.delete(call.project, call.part("depend_id"))

    async def _stored(
        self, call: BodyCall[DependencyBody], store: Callable[[NewDependency], Awaitable[Dependency]]
    ) -> Dependency:
        """Return what ``store`` makes of the dependency in the body."""
        async with self._codes.receiving("depend_file") as upload:
            body = await call.read_code(upload)
            return await store(
                NewDependency(
                    name=body.name,
                    runtime=body.runtime,
                    kind=body.depend_type,
                    file=body.depend_file,
                    received=upload.code(body.depend_file),
                    link=body.depend_link,
                    description=body.description,
                )
            )

    def _version(self, dependency: Dependency) -> DependencyReply:
        """Return the description of one version: ``id`` is the version's id."""
        return dependency_reply(dependency, shared=self._dependencies.is_shared(dependency))

    def _whole(self, newest: Dependency) -> DependencyReply:
        """Return the description of a dependency by its newest version: ``id`` is the dependency's id."""
        return replace(self._version(newest), id=newest.dep_id)


def dependency_reply(dependency: Dependency, *, shared: bool = False) -> DependencyReply:
    return DependencyReply(
        id=dependency.id,
        dep_id=dependency.dep_id,
        name=dependency.name,
        version=dependency.version,
        owner=PUBLIC if shared else dependency.project,
        runtime=dependency.runtime,
        etag=dependency.etag,
        size=dependency.code.size,
        link=dependency.code.url,
        file_name=dependency.code.filename,
        description=dependency.description,
        last_modified=int(dependency.created_at),
        is_shared=shared,
    )


def _page(call: Call, entries: Sequence[Dependency], shown: Callable[[Dependency], DependencyReply]) -> DependencyList:
    """Return the page of ``entries`` that the query selects.

    The query parameters ``limit`` and ``maxitems`` both set the largest number of entries.
    """
    page = page_of(call, entries, "limit", "maxitems")
    dependencies = [shown(dependency) for dependency in page.items]
    return DependencyList(dependencies=dependencies, count=page.count, next_marker=page.next_marker)
