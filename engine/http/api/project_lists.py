"""Lists of a project that clients read before they describe functions: runtimes, interpreters, agencies, quotas.

This engine has no applications and no templates. Their lists are those of a project without any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from engine.auth.agencies import Agency
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.paging import ITEMS, PAGE, page_of
from engine.http.api.routing import BASE, ApiFamily, Call, read
from engine.model.limits import INSTANCES
from engine.resources.reservations import Reservations
from engine.runtimes.catalog import OFFERED, Family, family_of
from engine.runtimes.interpreters import InterpreterInfo

_AGENCIES = ("xrole", "app_xrole")  #: fields of functions that name one
MB = 1 << 20
#: Raises InvalidField if this machine cannot run a runtime.
CheckRuntime = Callable[[str], Awaitable[None]]


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


class Quota(Struct, frozen=True, kw_only=True):
    type: str
    quota: int
    used: int
    unit: str = ""


class QuotaList(Struct, frozen=True, kw_only=True):
    resources: list[Quota]


class Quotas(Struct, frozen=True, kw_only=True):
    quotas: QuotaList


class ProjectListsApi(ApiFamily):
    """Lists of a project.

    ``instances`` returns the number of live instances of functions. ``check_runtime`` raises InvalidField if this
    machine cannot run a runtime. ``find_interpreters`` returns the interpreter of a runtime, or all for an empty text.
    """

    def __init__(
        self,
        catalog: Catalog,
        reservations: Reservations,
        instances: Callable[[Collection[int]], int],
        check_runtime: CheckRuntime,
        find_interpreters: Callable[[str], Awaitable[list[InterpreterInfo]]],
        agencies: Mapping[str, Agency],
    ) -> None:
        self._catalog, self._reservations, self._instances = catalog, reservations, instances
        self._agencies = agencies
        self._check_runtime, self._find_interpreters = check_runtime, find_interpreters

    @read("ListRuntimeTypes", f"{BASE}/runtimetypes", list[RuntimeType], own=True)
    async def list_runtimes(self, call: Call) -> list[RuntimeType]:
        """List the runtimes that this machine can run."""
        problems = await problems_of_runtimes(self._check_runtime)
        return [RuntimeType(type=name, display_name=label) for name, label in OFFERED.items() if not problems[name]]

    @read("ListInterpreters", f"{BASE}/interpreters", list[InterpreterInfo], query=("runtime",), own=True)
    async def list_interpreters(self, call: Call) -> list[InterpreterInfo]:
        """List the interpreter of the query's runtime; without one, all, the newest of each language first."""
        return await self._find_interpreters(call.text("runtime"))

    @read("ListServiceTrustedAgencies", f"{BASE}/service-trusted-agencies", list[TrustedAgency], own=True)
    async def list_agencies(self, call: Call) -> list[TrustedAgency]:
        """List the project's agencies of the settings, and those that its functions name. None expires."""
        functions = self._catalog.list(call.project)
        named = {str(function.details.get(field) or "") for function in functions for field in _AGENCIES}
        named |= {name for name, agency in self._agencies.items() if agency.is_for(call.project)}
        return [TrustedAgency(name=name) for name in sorted(named - {""})]

    @read("ListFunctionApplications", f"{BASE}/applications", ApplicationList, query=PAGE, lacks="applications")
    async def list_applications(self, call: Call) -> ApplicationList:
        return ApplicationList(next_marker=_empty(call, "limit"))

    @read(
        "ListAppTemplates",
        f"{BASE}/application/templates",
        AppTemplateList,
        query=(*ITEMS, "runtime", "category"),
        headers=("X-Language",),
        lacks="templates",
    )
    async def list_app_templates(self, call: Call) -> AppTemplateList:
        return AppTemplateList(next_marker=_empty(call, "maxitems"))

    @read(
        "ListFunctionTemplate",
        f"{BASE}/templates",
        FunctionTemplateList,
        query=(*ITEMS, "ispublic", "runtime", "scene", "service"),
        lacks="templates",
    )
    async def list_function_templates(self, call: Call) -> FunctionTemplateList:
        return FunctionTemplateList(next_marker=_empty(call, "maxitems"))

    @read("ListQuotas", f"{BASE}/quotas", Quotas)
    async def show_quotas(self, call: Call) -> Quotas:
        project = call.project
        functions = {function.function_id for function in self._catalog.list(project)}
        reserved = sum(held.count for held in self._reservations.find(project))
        on_demand = max(0, self._instances(functions) - reserved)
        code, limits = self._catalog.quota, self._catalog.limits
        quotas = [
            Quota(type="fgs_func_num", quota=limits.functions, used=len(functions)),
            Quota(type="fgs_func_code_size", quota=code.limit // MB, used=-(-code.used(project) // MB), unit="MB"),
            Quota(type="fgs_func_occurs", quota=limits.reserved_instances, used=reserved),
            Quota(type="fgs_on_demand_instance_limit", quota=INSTANCES[1], used=on_demand),
            Quota(type="fgs_workflow_num", quota=0, used=0),
        ]
        return Quotas(quotas=QuotaList(resources=quotas))


async def problems_of_runtimes(check: CheckRuntime) -> dict[str, str]:
    """Return why this machine cannot run each runtime that the catalog offers, by name; empty: it can.

    One interpreter serves all versions of its language.
    """
    by_family: dict[Family | None, str] = {}
    for name in OFFERED:
        if (family := family_of(name)) not in by_family:
            by_family[family] = ""
            try:
                await check(name)
            except InvalidField as error:
                by_family[family] = error.allowed
    return {name: by_family[family_of(name)] for name in OFFERED}


def _empty(call: Call, limit: str) -> int:
    """Return the ``next_marker`` of an empty list. Raises BadQuery if a parameter of the page is not a number."""
    nothing: list[Any] = []
    page_of(call, nothing, limit)
    return 0
