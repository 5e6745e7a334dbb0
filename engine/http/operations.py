"""Table of all operations of the API: name in the vendor's SDK, method, path, parameters, body, reply and roles.

The OpenAPI document and the page ``engine/docs/api.md`` are generated from this table. ``python -m engine.docs`` writes
the page. A test compares the table with the paths and methods that the server handles. An operation without roles is
for the role admin only, and so is any request that is not in the table. One for the role operator only is for an admin
while credentials name one project.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engine.auth.roles import OPERATOR, Role
from engine.http.api import (
    aliases,
    async_settings,
    backups,
    clock,
    delivery_steps,
    destinations,
    events,
    logs,
    metrics,
    packages,
    records,
    redrive,
    reserved_instances,
    tags,
    tracing_and_snapshots,
    triggers,
    versions,
)
from engine.http.api import function_shapes as functions
from engine.http.api.batch_body import BatchBody
from engine.http.api.batches import BatchReply
from engine.http.api.routing import BASE
from engine.http.control_operations import CONTROL_OPERATIONS
from engine.http.dependency_operations import DEPENDENCY_OPERATIONS
from engine.http.project_operations import PROJECT_OPERATIONS
from engine.logs.target import LogTarget
from engine.protocols import Operation

ZIP, TEXT = "application/zip", "text/plain"
JSON_LINES = "application/x-ndjson"


class Problem(Struct, frozen=True, kw_only=True):
    """Body of every error reply."""

    error_code: str
    error_msg: str
    request_id: str | UnsetType = UNSET  #: for errors of workflow metrics only; other replies have just X-Request-Id


class Health(Struct, frozen=True, kw_only=True):
    """Health of the engine, as /healthz and /readyz return it.

    If ``status`` is neither ``ok`` nor ``ready``, further fields describe the problems, one for each affected part.
    ``degraded`` means that the engine works, but without a part, such as a damaged page of its data.
    """

    status: str


_INVOKE: tuple[Role, ...] = ("invoke",)
_READ: tuple[Role, ...] = ("read",)
_BOTH = (*_INVOKE, *_READ)
_ALL = (*_BOTH, *OPERATOR)
_F = f"{BASE}/functions"
_ONE = f"{_F}/{{function_urn}}"
_EVENT, _ALIAS = f"{_ONE}/events/{{event_id}}", f"{_ONE}/aliases/{{alias_name}}"
_SETTINGS = f"{_ONE}/async-invoke-config"
_TRIGGERS = f"{BASE}/triggers/{{function_urn}}"
_TRIGGER = f"{_TRIGGERS}/{{trigger_type_code}}/{{trigger_id}}"
_KIND = "/v2/{project_id}/{resource_type}"
_TAGS = f"{_KIND}/{{resource_id}}/tags"
_PAGE, _ITEMS = ("marker", "limit"), ("marker", "maxitems")
_RECORDS = ("marker", "limit", "status", "query_begin_time", "query_end_time")
_MEMORY = "X-Cff-Instance-Memory"
_ACCEPTING = (_MEMORY, "X-Functiond-Priority", "X-Functiond-Delay", "X-Functiond-Ordering-Key", "Idempotency-Key")


def _op(name: str, method: str, path: str, body: Any = None, reply: Any = None, **more: Any) -> Operation:
    return Operation(name=name, method=method, path=path, body=body, reply=reply, **more)


OPERATIONS = (
    # --- functions ---
    _op("CreateFunction", "POST", _F, functions.CreateBody, functions.FunctionReply),
    _op(
        "ListFunctions",
        "GET",
        _F,
        None,
        functions.FunctionList,
        query=(*_ITEMS, "package_name", "func_name"),
        roles=_READ,
    ),
    _op("DeleteFunction", "DELETE", _ONE, status=204),
    _op("ShowFunctionConfig", "GET", f"{_ONE}/config", None, functions.FunctionReply, roles=_READ),
    _op("UpdateFunctionConfig", "PUT", f"{_ONE}/config", functions.ConfigBody, functions.FunctionReply),
    _op("PatchFunctionConfig", "PATCH", f"{_ONE}/config", functions.PatchBody, functions.FunctionReply, own=True),
    _op("ShowFunctionCode", "GET", f"{_ONE}/code", None, functions.FunctionReply),
    _op(
        "UpdateFunctionCode",
        "PUT",
        f"{_ONE}/code",
        functions.CodeBody,
        functions.FunctionReply,
        headers=("If-Match",),
    ),
    _op(
        "UpdateFunctionMaxInstanceConfig",
        "PUT",
        f"{_ONE}/config-max-instance",
        functions.MaxInstanceBody,
        functions.FunctionReply,
    ),
    _op("UpdateFunctionCollectState", "PUT", f"{_ONE}/collect/{{state}}"),
    _op("ExportFunction", "GET", f"{_ONE}/export", None, bytes, query=("config", "code", "type"), content=ZIP),
    _op("ImportFunction", "POST", f"{_F}/import", packages.ImportBody, functions.FunctionReply),
    # --- versions and aliases ---
    _op(
        "CreateFunctionVersion",
        "POST",
        f"{_ONE}/versions",
        versions.PublishBody,
        functions.FunctionReply,
        optional=True,
    ),
    _op("ListFunctionVersions", "GET", f"{_ONE}/versions", None, versions.VersionList, query=_ITEMS, roles=_READ),
    _op("CreateVersionAlias", "POST", f"{_ONE}/aliases", aliases.CreateAliasBody, aliases.AliasReply),
    _op("ListVersionAliases", "GET", f"{_ONE}/aliases", None, list[aliases.AliasReply], roles=_READ),
    _op("ShowVersionAlias", "GET", _ALIAS, None, aliases.AliasReply, roles=_READ),
    _op("UpdateVersionAlias", "PUT", _ALIAS, aliases.AliasBody, aliases.AliasReply),
    _op("DeleteVersionAlias", "DELETE", _ALIAS, status=204),
    # --- invocations ---
    _op(
        "AsyncInvokeFunction",
        "POST",
        f"{_ONE}/invocations-async",
        Any,
        Any,
        status=202,
        headers=_ACCEPTING,
        roles=_INVOKE,
    ),
    _op(
        "BatchAsyncInvokeFunction",
        "POST",
        f"{_ONE}/invocations-async/batch",
        BatchBody,
        BatchReply,
        status=202,
        headers=(_MEMORY,),
        own=True,
        roles=_INVOKE,
    ),
    _op(
        "InvokeFunction",
        "POST",
        f"{_ONE}/invocations",
        Any,
        Any,
        headers=("X-Cff-Log-Type", "X-CFF-Request-Version", _MEMORY),
        roles=_INVOKE,
    ),
    _op(
        "ListAsyncInvocations",
        "GET",
        f"{_ONE}/async-invocations",
        None,
        records.InvocationList,
        query=("request_id", *_RECORDS, "after", "error_text", "trigger_id"),
        roles=_BOTH,
    ),
    _op(
        "ListActiveAsyncInvocations",
        "GET",
        f"{_ONE}/active-async-invocations",
        None,
        records.InvocationList,
        query=("requests", *_RECORDS, "after", "error_text", "trigger_id"),
        roles=_BOTH,
    ),
    _op(
        "ShowAsyncInvocation",
        "GET",
        f"{_ONE}/async-invocations/{{request_id}}",
        None,
        records.WholeRecord,
        query=("wait",),
        own=True,
        roles=_BOTH,
        hidden={"invoke": ("payload", "log"), "read": ("payload", "result")},
    ),
    _op(
        "ShowAsyncInvocationLogs",
        "GET",
        f"{_ONE}/async-invocations/{{request_id}}/logs",
        None,
        logs.LogItem,
        query=("attempt",),
        content=JSON_LINES,
        own=True,
        roles=_READ,
    ),
    _op(
        "ShowFunctionLogs",
        "GET",
        f"{_ONE}/logs",
        None,
        logs.LogItem,
        query=("attempts",),
        content=JSON_LINES,
        own=True,
        roles=_READ,
    ),
    _op(
        "RedriveAsyncInvocations",
        "POST",
        f"{_ONE}/async-invocations/redrive",
        redrive.RedriveInvocationsBody,
        redrive.RedrivenInvocations,
        own=True,
    ),
    _op(
        "ListDestinations",
        "GET",
        f"{BASE}/destinations",
        None,
        destinations.DestinationList,
        query=_ITEMS,
        own=True,
        roles=_READ,
    ),
    _op(
        "ListDeliveries",
        "GET",
        f"{BASE}/deliveries",
        None,
        redrive.DeliveryList,
        query=(*_PAGE, "after"),
        own=True,
        roles=_READ,
    ),
    _op(
        "RedriveDeliveries",
        "POST",
        f"{BASE}/deliveries/redrive",
        delivery_steps.RedriveDeliveriesBody,
        delivery_steps.RedrivenDeliveries,
        own=True,
    ),
    _op(
        "DiscardDeliveries",
        "POST",
        f"{BASE}/deliveries/discard",
        delivery_steps.DiscardDeliveriesBody,
        delivery_steps.DiscardedDeliveries,
        own=True,
    ),
    _op("CancelAsyncInvocation", "POST", f"{_ONE}/cancel", records.CancelBody, roles=_INVOKE),
    # --- asynchronous settings ---
    _op(
        "UpdateFunctionAsyncInvokeConfig",
        "PUT",
        _SETTINGS,
        async_settings.AsyncSettingsBody,
        async_settings.AsyncSettingsReply,
    ),
    _op("ShowFunctionAsyncInvokeConfig", "GET", _SETTINGS, None, async_settings.AsyncSettingsReply, roles=_READ),
    _op("DeleteFunctionAsyncInvokeConfig", "DELETE", _SETTINGS, status=204),
    _op(
        "ListFunctionAsyncInvokeConfig",
        "GET",
        f"{_ONE}/async-invoke-configs",
        None,
        async_settings.AsyncSettingsList,
        query=_PAGE,
        roles=_READ,
    ),
    _op("EnableAsyncStatusLog", "POST", f"{_F}/enable-async-status-logs"),
    _op("ShowProjectAsyncStatusLogInfo", "GET", f"{_F}/async-status-log-detail", None, LogTarget, roles=_READ),
    *CONTROL_OPERATIONS,
    # --- triggers ---
    _op("CreateFunctionTrigger", "POST", _TRIGGERS, triggers.CreateTriggerBody, triggers.TriggerReply, status=201),
    _op("ListFunctionTriggers", "GET", _TRIGGERS, None, list[triggers.TriggerReply], roles=_READ),
    _op("BatchDeleteFunctionTriggers", "DELETE", _TRIGGERS, status=204),
    _op("ShowFunctionTrigger", "GET", _TRIGGER, None, triggers.TriggerReply, roles=_READ),
    _op("UpdateTrigger", "PUT", _TRIGGER, triggers.UpdateTriggerBody, triggers.TriggerReply),
    _op("DeleteFunctionTrigger", "DELETE", _TRIGGER, status=204),
    _op("ShowTriggerState", "GET", f"{_TRIGGER}/state", None, triggers.TriggerState, own=True, roles=_READ),
    _op("SeekTrigger", "POST", f"{_TRIGGER}/seek", triggers.SeekBody, triggers.TriggerState, own=True),
    _op(
        "ListProjectTriggers",
        "GET",
        f"{BASE}/triggers",
        None,
        triggers.ProjectTriggers,
        query=(*_ITEMS, "trigger_type"),
        own=True,
        roles=_READ,
    ),
    _op("ListTriggerTypes", "GET", f"{BASE}/triggertypes", None, list[Any], own=True, roles=_READ),
    _op(
        "ShowFeatures", "GET", f"{BASE}/feature", None, dict[str, Any], own=True, lacks="optional features", roles=_READ
    ),
    # --- reserved instances ---
    _op(
        "UpdateFunctionReservedInstancesCount",
        "PUT",
        f"{_ONE}/reservedinstances",
        reserved_instances.ReservedBody,
        reserved_instances.ReservedBody,
    ),
    _op(
        "ListFunctionReservedInstances",
        "GET",
        f"{_F}/reservedinstances",
        None,
        reserved_instances.ReservedCounts,
        query=(*_PAGE, "urn"),
        roles=_READ,
    ),
    _op(
        "ListReservedInstanceConfigs",
        "GET",
        f"{_F}/reservedinstanceconfigs",
        None,
        reserved_instances.ReservedConfigs,
        query=(*_PAGE, "function_urn"),
        roles=_READ,
    ),
    # --- test events, dependencies, tags ---
    _op("CreateEvent", "POST", f"{_ONE}/events", events.CreateEventBody, events.EventName),
    _op("ListEvents", "GET", f"{_ONE}/events", None, events.EventList, roles=_READ),
    _op("ShowEvent", "GET", _EVENT, None, events.EventReply, roles=_READ, hidden={"read": ("content",)}),
    _op("UpdateEvent", "PUT", _EVENT, events.UpdateEventBody, events.EventName),
    _op("DeleteEvent", "DELETE", _EVENT, status=204),
    *DEPENDENCY_OPERATIONS,
    _op("CreateTags", "POST", f"{_TAGS}/create", tags.TagsBody, status=204),
    _op("DeleteTags", "DELETE", f"{_TAGS}/delete", tags.TagsBody, status=204),
    _op("ListFunctionTags", "GET", _TAGS, None, tags.TagList, roles=_READ),
    _op("ShowProjectTagsList", "GET", f"{_KIND}/tags", None, tags.ProjectTags, roles=_READ),
    _op(
        "ShowResInstanceInfo",
        "POST",
        f"{_KIND}/resource-instances/{{action}}",
        tags.FindBody,
        tags.TaggedResources,
        roles=_READ,
    ),
    # --- statistics, quotas, switches ---
    _op("ListFunctionStatistics", "GET", f"{_ONE}/statistics/{{period}}", None, metrics.FunctionSeries, roles=_READ),
    _op("ShowFunctionMetrics", "GET", f"{_ONE}/slareports/{{period}}", None, metrics.FunctionSeries, roles=_READ),
    _op(
        "ShowFuncReservedInstanceMetrics",
        "GET",
        f"{_ONE}/instancereports",
        None,
        metrics.ReservedSeries,
        query=_PAGE,
        roles=_READ,
    ),
    *PROJECT_OPERATIONS,
    _op("ShowTracing", "GET", f"{_ONE}/tracing", None, tracing_and_snapshots.TracingShape, lacks="APM", roles=_READ),
    _op("UpdateTracing", "PUT", f"{_ONE}/tracing", tracing_and_snapshots.TracingShape, lacks="APM"),
    _op("EnableLtsLogs", "POST", f"{_F}/enable-lts-logs"),
    _op("ShowLtsLogDetails", "GET", f"{_ONE}/lts-log-detail", None, LogTarget, roles=_READ),
    _op(
        "ShowFuncSnapshotState",
        "GET",
        f"{_ONE}/snapshots/{{action}}",
        None,
        tracing_and_snapshots.SnapshotState,
        lacks="snapshots",
        roles=_READ,
    ),
    _op("UpdateFuncSnapshot", "POST", f"{_ONE}/snapshots/{{action}}", status=204, lacks="snapshots"),
    # --- the engine itself ---
    _op(
        "CreateBackup",
        "POST",
        f"{BASE}/backups",
        backups.BackupBody,
        backups.BackupLine,
        content=JSON_LINES,
        own=True,
        roles=OPERATOR,
    ),
    _op("ShowClock", "GET", f"{BASE}/clock", None, clock.ClockReply, own=True, roles=(*_READ, *OPERATOR)),
    _op("AcceptClock", "POST", f"{BASE}/clock/accept", None, clock.ClockReply, own=True, roles=OPERATOR),
    _op("ShowHealth", "GET", "/healthz", None, Health, own=True, roles=_ALL),
    _op("ShowReadiness", "GET", "/readyz", None, Health, own=True, roles=_ALL),
    _op("ShowFigures", "GET", "/metrics", None, str, content=TEXT, own=True, roles=(*_READ, *OPERATOR)),
    _op("ShowDocument", "GET", "/openapi.json", None, dict[str, Any], own=True, roles=_ALL),
)
