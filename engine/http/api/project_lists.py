"""Lists of a project that clients read before they describe functions: runtimes, agencies, applications, templates.

This engine has no applications and no templates. Their lists are those of a project without any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.paging import page_of
from engine.http.api.routing import BASE, Call, Resource
from engine.runtimes.catalog import OFFERED, Family, find_runtime

_AGENCIES = ("xrole", "app_xrole")  #: fields of functions that name one


class RuntimeType(Struct, frozen=True, kw_only=True):
    type: str
    display_name: str


class TrustedAgency(Struct, frozen=True, kw_only=True):
    name: str
    expire_time: str | None = None  #: null: never


class ApplicationList(Struct, frozen=True, kw_only=True):
    applications: list[Any] = []
    count: int = 0
    next_marker: int


class AppTemplateList(Struct, frozen=True, kw_only=True):
    templates: list[Any] = []
    count: int = 0
    next_marker: int


class FunctionTemplateList(Struct, frozen=True, kw_only=True):
    func_templates: list[Any] = []
    next_marker: int


class ProjectListsApi:
    """Lists of a project. ``check_runtime`` raises InvalidField if this machine cannot run a runtime."""

    def __init__(self, catalog: Catalog, check_runtime: Callable[[str], Awaitable[None]]) -> None:
        self._catalog, self._check_runtime = catalog, check_runtime

    def resources(self) -> list[Resource]:
        return [
            Resource(path=f"{BASE}/runtimetypes", methods={"GET": self.list_runtimes}),
            Resource(path=f"{BASE}/service-trusted-agencies", methods={"GET": self.list_agencies}),
            Resource(path=f"{BASE}/applications", methods={"GET": self.list_applications}),
            Resource(path=f"{BASE}/application/templates", methods={"GET": self.list_app_templates}),
            Resource(path=f"{BASE}/templates", methods={"GET": self.list_function_templates}),
        ]

    async def list_runtimes(self, call: Call) -> Reply:
        """List the runtimes that this machine can run. One interpreter serves all versions of its language."""
        runs: dict[Family | None, bool] = {}
        found = []
        for name, display_name in OFFERED.items():
            family = _family(name)
            if family not in runs:
                runs[family] = await self._can_run(name)
            if runs[family]:
                found.append(RuntimeType(type=name, display_name=display_name))
        return json_reply(found)

    async def list_agencies(self, call: Call) -> Reply:
        """List the agencies that functions of the project name. Each is accepted, and none expires."""
        functions = self._catalog.list(call.project)
        named = {str(function.details.get(field) or "") for function in functions for field in _AGENCIES}
        return json_reply([TrustedAgency(name=name) for name in sorted(named - {""})])

    async def list_applications(self, call: Call) -> Reply:
        return json_reply(ApplicationList(next_marker=_empty(call, "limit")))

    async def list_app_templates(self, call: Call) -> Reply:
        return json_reply(AppTemplateList(next_marker=_empty(call, "maxitems")))

    async def list_function_templates(self, call: Call) -> Reply:
        return json_reply(FunctionTemplateList(next_marker=_empty(call, "maxitems")))

    async def _can_run(self, runtime: str) -> bool:
        try:
            await self._check_runtime(runtime)
        except InvalidField:
            return False
        return True


def _family(name: str) -> Family | None:
    found = find_runtime(name)
    return found.family if found is not None else None


def _empty(call: Call, limit: str) -> int:
    """Return the ``next_marker`` of an empty list. Raises BadQuery if a parameter of the page is not a number."""
    nothing: list[Any] = []
    page_of(call, nothing, limit)
    return 0
