"""Collection of all resources (paths with handlers) of the API, which the other modules of this package define."""

from __future__ import annotations

from engine.http.api.aliases import AliasesApi
from engine.http.api.async_settings import AsyncSettingsApi
from engine.http.api.dependencies import DependenciesApi
from engine.http.api.events import EventsApi
from engine.http.api.functions import Functions
from engine.http.api.health import Health
from engine.http.api.logs import LogsApi
from engine.http.api.metrics import MetricsApi
from engine.http.api.packages import PackagesApi
from engine.http.api.parts import ApiDependencies
from engine.http.api.quotas import QuotasApi
from engine.http.api.records import InvocationRecords
from engine.http.api.redrive import RedriveApi
from engine.http.api.reserved_instances import ReservedApi
from engine.http.api.routing import Resource
from engine.http.api.tags import TagsApi
from engine.http.api.tracing_and_snapshots import TracingAndSnapshotsApi
from engine.http.api.triggers import TriggersApi
from engine.http.api.versions import VersionsApi
from engine.http.openapi import Document


def all_resources(parts: ApiDependencies) -> list[Resource]:
    """Return all resources of the API except ``invocations`` and ``invocations-async``.

    HttpServer handles requests for these two without the router.
    """
    return [
        *Functions(parts).resources(),
        *VersionsApi(parts).resources(),
        *AliasesApi(parts).resources(),
        *InvocationRecords(parts).resources(),
        *LogsApi(parts).resources(),
        *RedriveApi(parts).resources(),
        *AsyncSettingsApi(parts).resources(),
        *TriggersApi(parts).resources(),
        *ReservedApi(parts).resources(),
        *EventsApi(parts.resources).resources(),
        *DependenciesApi(parts.resources).resources(),
        *TagsApi(parts).resources(),
        *PackagesApi(parts).resources(),
        *MetricsApi(parts).resources(),
        *QuotasApi(parts).resources(),
        *TracingAndSnapshotsApi(parts).resources(),
        *Health(parts.health).resources(),
        *Document(parts.version, parts.mounted).resources(),
    ]
