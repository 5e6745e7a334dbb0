"""Operations on whole projects: statistics, quotas, and lists. Part of the table in ``engine.http.operations``."""

from __future__ import annotations

from engine.auth.roles import Role
from engine.http.api import metrics, project_lists, quotas, triggers
from engine.http.api.routing import BASE
from engine.protocols import Operation
from engine.runtimes.descriptions import InterpreterInfo

_READ: tuple[Role, ...] = ("read",)
_PAGE, _ITEMS, _SPAN = ("marker", "limit"), ("marker", "maxitems"), ("start_time", "end_time")
_F = f"{BASE}/functions"


PROJECT_OPERATIONS = (
    Operation(
        name="ListStatistics",
        method="GET",
        path=f"{_F}/statistics",
        reply=metrics.Statistics,
        query=(*_PAGE, "filter", "period", "option"),
        roles=_READ,
    ),
    Operation(
        name="ListFunctionAsMetric",
        method="GET",
        path=f"{BASE}/function/report",
        reply=metrics.FunctionMetrics,
        query=("type", "limit", *_SPAN),
        roles=_READ,
    ),
    Operation(
        name="ShowTenantMetric",
        method="GET",
        path=f"{BASE}/workflow-statistic",
        reply=metrics.WorkflowSeries,
        query=("period", "metric_type", *_SPAN),
        lacks="workflows",
        roles=_READ,
    ),
    Operation(
        name="ShowWorkFlowMetric",
        method="GET",
        path=f"{BASE}/workflow-statistic/{{workflow_urn}}",
        reply=metrics.WorkflowSeries,
        query=("period", *_SPAN),
        lacks="workflows",
        roles=_READ,
    ),
    Operation(
        name="ListRuntimeTypes",
        method="GET",
        path=f"{BASE}/runtimetypes",
        reply=list[project_lists.RuntimeType],
        own=True,
        roles=_READ,
    ),
    Operation(
        name="ListInterpreters",
        method="GET",
        path=f"{BASE}/interpreters",
        reply=list[InterpreterInfo],
        query=("runtime",),
        own=True,
        roles=_READ,
    ),
    Operation(
        name="ListSampleEvents",
        method="GET",
        path=f"{BASE}/sample-events",
        reply=list[triggers.SampleEvent],
        own=True,
        roles=_READ,
    ),
    Operation(
        name="ListServiceTrustedAgencies",
        method="GET",
        path=f"{BASE}/service-trusted-agencies",
        reply=list[project_lists.TrustedAgency],
        own=True,
        roles=_READ,
    ),
    Operation(
        name="ListFunctionApplications",
        method="GET",
        path=f"{BASE}/applications",
        reply=project_lists.ApplicationList,
        query=_PAGE,
        lacks="applications",
        roles=_READ,
    ),
    Operation(
        name="ListAppTemplates",
        method="GET",
        path=f"{BASE}/application/templates",
        reply=project_lists.AppTemplateList,
        query=(*_ITEMS, "runtime", "category"),
        headers=("X-Language",),
        lacks="templates",
        roles=_READ,
    ),
    Operation(
        name="ListFunctionTemplate",
        method="GET",
        path=f"{BASE}/templates",
        reply=project_lists.FunctionTemplateList,
        query=(*_ITEMS, "ispublic", "runtime", "scene", "service"),
        lacks="templates",
        roles=_READ,
    ),
    Operation(name="ListQuotas", method="GET", path=f"{BASE}/quotas", reply=quotas.Quotas, roles=_READ),
)
