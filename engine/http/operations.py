"""All operations of the API, as its families declare them."""

from __future__ import annotations

from engine.http.api.async_settings import AsyncSettingsApi
from engine.http.api.backups import BackupsApi
from engine.http.api.calls import CallsApi
from engine.http.api.controls import ControlsApi
from engine.http.api.deliveries import DeliveriesApi
from engine.http.api.dependencies import DependenciesApi
from engine.http.api.events import EventsApi
from engine.http.api.functions import Functions
from engine.http.api.gateway import GatewayApi
from engine.http.api.groups import GroupsApi
from engine.http.api.health import ClockApi, HealthApi, NodesApi
from engine.http.api.invocation_actions import InvocationActionsApi
from engine.http.api.invocations import Invocations
from engine.http.api.logs import LogsApi
from engine.http.api.metrics import MetricsApi
from engine.http.api.packages import PackagesApi
from engine.http.api.project_lists import ProjectListsApi
from engine.http.api.records import InvocationRecords
from engine.http.api.reserved_instances import ReservedApi
from engine.http.api.results import ResultsApi
from engine.http.api.routing import ApiFamily
from engine.http.api.tags import TagsApi
from engine.http.api.tracing_and_snapshots import TracingAndSnapshotsApi
from engine.http.api.triggers import TriggersApi
from engine.http.api.versions import AliasesApi, VersionsApi
from engine.http.openapi import Document

#: Families in the order in which the documentation lists their operations.
FAMILIES: tuple[type[ApiFamily], ...] = (
    Functions,
    PackagesApi,
    VersionsApi,
    AliasesApi,
    Invocations,
    CallsApi,
    GroupsApi,
    InvocationRecords,
    ResultsApi,
    LogsApi,
    InvocationActionsApi,
    DeliveriesApi,
    AsyncSettingsApi,
    ControlsApi,
    TriggersApi,
    GatewayApi,
    ReservedApi,
    EventsApi,
    DependenciesApi,
    TagsApi,
    MetricsApi,
    ProjectListsApi,
    TracingAndSnapshotsApi,
    BackupsApi,
    ClockApi,
    NodesApi,
    HealthApi,
    Document,
)
OPERATIONS = tuple(declared for family in FAMILIES for declared, _ in family.operations())
BY_NAME = {declared.name: declared for declared in OPERATIONS}
