"""Tags of functions, and search for functions by tags (FunctionGraph API: CreateTags and others).

Unlike other paths of the API, these have no ``/fgs``: the vendor's tag service uses the same paths for all services. In
a path, ``resource_id`` is the URN of a function, or the number that replies about the function have by this name.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.errors import InvalidField, NotFound, UnknownFunction
from engine.functions.catalog import Catalog
from engine.http.api.paging import MAX_TAGGED
from engine.http.api.routing import (
    BODY_LIMIT,
    LONG_LIMIT,
    READ,
    ApiFamily,
    BodyCall,
    Call,
    operation,
    own_urn,
    read,
    whole_number,
)
from engine.model import Function
from engine.model.urn import LATEST
from engine.resources.tags import TagFilter, Tags, TagSet

_FUNCTIONS = "functions"
_KINDS = {"resource_type": (_FUNCTIONS,)}
_KIND = "/v2/{project_id}/{resource_type}"
_TAGS = f"{_KIND}/{{resource_id}}/tags"


class Tag(Struct, frozen=True, kw_only=True):
    key: str
    value: str = ""


class TagValues(Struct, frozen=True, kw_only=True):
    key: str
    values: list[str] = []


class TagsBody(Struct, frozen=True, kw_only=True):
    tags: list[Tag] = []
    sys_tags: list[Tag] = []
    action: str = ""


class TagList(Struct, frozen=True, kw_only=True):
    tags: list[Tag]
    sys_tags: list[Tag]


class ProjectTags(Struct, frozen=True, kw_only=True):
    tags: list[TagValues]
    sys_tags: list[TagValues]


class FindBody(Struct, frozen=True, kw_only=True):
    without_any_tag: bool = False
    limit: str | int = ""  #: the vendor's clients send numbers as text
    offset: str | int = ""
    action: str = ""
    matches: list[Tag] = []
    tags: list[TagValues] = []
    sys_tags: list[TagValues] = []


class ResourceDetail(Struct, frozen=True, kw_only=True, rename="camel"):
    detail_id: str


class TaggedResource(TagList, frozen=True, kw_only=True):
    resource_id: str
    resource_name: str
    resource_detail: ResourceDetail


class TaggedResources(Struct, frozen=True, kw_only=True):
    resources: list[TaggedResource]
    total_count: int


class TagsApi(ApiFamily):
    def __init__(self, tags: Tags, catalog: Catalog, region: str) -> None:
        self._tags, self._catalog, self._region = tags, catalog, region

    @operation("CreateTags", "POST", f"{_TAGS}/create", TagsBody, status=204, choices=_KINDS, limit=LONG_LIMIT)
    async def create(self, call: BodyCall[TagsBody]) -> None:
        function, body = self._function(call), await call.read()
        _check_action(body.action, "create")
        await self._tags.add(function, TagSet(tags=_table(body.tags), sys_tags=_table(body.sys_tags)))

    @operation("DeleteTags", "DELETE", f"{_TAGS}/delete", TagsBody, status=204, choices=_KINDS, limit=LONG_LIMIT)
    async def delete(self, call: BodyCall[TagsBody]) -> None:
        function, body = self._function(call), await call.read()
        _check_action(body.action, "delete")
        await self._tags.remove(function, list(_table(body.tags)), list(_table(body.sys_tags)))

    @read("ListFunctionTags", _TAGS, TagList, choices=_KINDS)
    async def list_all(self, call: Call) -> TagList:
        own = self._tags.of(self._function(call))
        return TagList(tags=_tags(own.tags), sys_tags=_tags(own.sys_tags))

    @read("ShowProjectTagsList", f"{_KIND}/tags", ProjectTags, choices=_KINDS)
    async def list_project(self, call: Call) -> ProjectTags:
        project = _project(call)
        tags, sys_tags = self._tags.of_project(project)
        return ProjectTags(tags=_tag_values(tags), sys_tags=_tag_values(sys_tags))

    @operation(
        "ShowResInstanceInfo",
        "POST",
        f"{_KIND}/resource-instances/{{action}}",
        FindBody,
        TaggedResources,
        roles=READ,
        choices={**_KINDS, "action": ("filter", "count")},
        traced=False,  # a search, although its filter is sent by POST
        limit=BODY_LIMIT,
    )
    async def find(self, call: BodyCall[FindBody]) -> TaggedResources:
        """Find functions by tags. Reply with the number of matches.

        The path ends with the action: ``filter`` also returns the functions, ``count`` returns the number only.
        """
        project, action = _project(call), call.choice("action")
        body = await call.read()
        offset, limit = whole_number("offset", str(body.offset), 0), whole_number("limit", str(body.limit), MAX_TAGGED)
        functions = self._tags.find(project, _filter(body))
        page = functions[offset : offset + min(limit, MAX_TAGGED)] if action == "filter" else ()
        return TaggedResources(resources=[self._resource(function) for function in page], total_count=len(functions))

    def _function(self, call: Call) -> Function:
        project, id = _project(call), call.part("resource_id")
        if not (id.isascii() and id.isdigit() and len(id) < 19):
            return self._catalog.find(own_urn(id, project, self._region))
        function = self._catalog.resolve(int(id), LATEST)
        if function is None or function.project != project:
            raise UnknownFunction(id)
        return function

    def _resource(self, function: Function) -> TaggedResource:
        own, urn = self._tags.of(function), str(function.urn(self._region))
        return TaggedResource(
            resource_id=urn,
            resource_name=function.name,
            resource_detail=ResourceDetail(detail_id=urn),
            tags=_tags(own.tags),
            sys_tags=_tags(own.sys_tags),
        )


def _project(call: Call) -> str:
    if call.part("resource_type") != _FUNCTIONS:
        raise NotFound(f"{call.part('resource_type')[:60]} have no tags in this engine; only {_FUNCTIONS} do")
    return call.project


def _check_action(action: str, expected: str) -> None:
    if action not in ("", expected):
        raise InvalidField("action", action, f"must be {expected} here")


def _filter(body: FindBody) -> TagFilter:
    names = [match.value for match in body.matches if match.key == "resource_name"]
    return TagFilter(
        tags={tag.key: frozenset(tag.values) for tag in body.tags},
        sys_tags={tag.key: frozenset(tag.values) for tag in body.sys_tags},
        untagged=body.without_any_tag,
        name_part=names[0] if names else "",
    )


def _table(tags: Sequence[Tag]) -> dict[str, str]:
    return {tag.key: tag.value for tag in tags}


def _tags(table: dict[str, str]) -> list[Tag]:
    return [Tag(key=key, value=value) for key, value in sorted(table.items())]


def _tag_values(table: dict[str, list[str]]) -> list[TagValues]:
    return [TagValues(key=key, values=values) for key, values in table.items()]
