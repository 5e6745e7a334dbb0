"""Construction of an engine's HTTP application and of its families of API operations."""

from __future__ import annotations

from engine import __version__
from engine.app.backup_wiring import backups_of
from engine.app.collectors import read_families, read_figures
from engine.app.console_wiring import build_console, session_cookie
from engine.app.health import EngineHealth
from engine.app.parts import EngineParts
from engine.asgi.wire import App
from engine.auth.denials import DenialLog
from engine.http.api.async_settings import AsyncSettingsApi
from engine.http.api.backups import BackupsApi
from engine.http.api.calls import CallReader, CallsApi, Parents
from engine.http.api.controls import ControlsApi
from engine.http.api.dependencies import DependenciesApi
from engine.http.api.events import EventsApi
from engine.http.api.functions import Functions
from engine.http.api.gateway import GatewayApi
from engine.http.api.groups import GroupsApi, LinkReplies
from engine.http.api.health import ClockApi, HealthApi, HealthChecks, NodesApi
from engine.http.api.invocation_actions import InvocationActionsApi
from engine.http.api.invocations import Invocations
from engine.http.api.logs import LogsApi
from engine.http.api.metrics import MetricsApi
from engine.http.api.packages import PackagesApi
from engine.http.api.project_lists import ProjectListsApi
from engine.http.api.records import InvocationRecords
from engine.http.api.reserved_instances import ReservedApi
from engine.http.api.results import Results, ResultsApi
from engine.http.api.routing import ApiFamily
from engine.http.api.tags import TagsApi
from engine.http.api.tracing_and_snapshots import TracingAndSnapshotsApi
from engine.http.api.versions import AliasesApi, VersionsApi
from engine.http.audit import audited
from engine.http.auth import Authenticator
from engine.http.console.api_requests import ApiRequests
from engine.http.console.session.sessions import ConsoleAuthenticator
from engine.http.openapi import Document
from engine.http.operations import OPERATIONS
from engine.http.plugin_requests import PluginRequests
from engine.http.restrictions import restricted
from engine.http.server import HttpServer
from engine.metrics.prometheus import rendered


def build_apps(engine: EngineParts) -> tuple[App, App]:
    """Return the ASGI application of an engine and the one for its functions.

    The former has the API, the paths of plugins, and the console if it is enabled. The latter has no console and no
    path that needs no credentials.
    """
    http, health, authenticator = engine.settings.http, _health(engine), engine.authenticator
    async_limit, sync_limit = http.async_body_limit, http.sync_body_limit
    calls = Invocations(engine.intake, engine.catalog, http.region, async_limit=async_limit, sync_limit=sync_limit)
    served = audited(build_families(engine, health), engine.audit, engine.clock)
    allowed = restricted(served) if authenticator is not None else served
    plugins = PluginRequests(engine.plugins.mounts, engine.audit, engine.clock)
    api, denials = ApiRequests(allowed, calls, plugins, http.region), DenialLog(engine.clock)
    whole = HttpServer(
        calls,
        served,
        http.region,
        authenticator=_admission(engine),
        plugins=plugins,
        console=build_console(engine, health, api) if http.console else None,
        lag=engine.lag,
        denials=denials,
    )
    signed = PluginRequests(engine.plugins.mounts, engine.audit, engine.clock, only_signed=True)
    admission = engine.function_authenticator
    return whole, HttpServer(
        calls, served, http.region, authenticator=admission, plugins=signed, lag=engine.lag, denials=denials
    )


def _admission(engine: EngineParts) -> Authenticator | ConsoleAuthenticator | None:
    """Return the check of requests; None if they need no credentials."""
    if engine.authenticator is None or not engine.settings.http.console:
        return engine.authenticator
    return ConsoleAuthenticator(engine.authenticator, engine.sessions, session_cookie(engine))


def build_families(engine: EngineParts, health: HealthChecks) -> list[ApiFamily]:
    """Return all families of API operations except invocations."""
    catalog, region, resources, storage = engine.catalog, engine.settings.http.region, engine.resources, engine.storage
    reservations, instances, clock = resources.reservations, engine.pool.alive, engine.clock
    cancelling, limit = engine.dispatcher.cancellation, engine.settings.http.async_body_limit
    identity, groups, calls = storage.identity, engine.groups, engine.call_intake
    reader, parents = CallReader(region, clock, limit), Parents(identity, engine.pool.find_run)
    results = Results(catalog, identity)
    return [
        Functions(catalog, engine.controls, engine.versions, engine.codes, engine.usage, reservations, region),
        VersionsApi(catalog, engine.versions, region),
        AliasesApi(catalog, engine.aliases, region),
        CallsApi(calls, reader, parents, groups, identity, clock),
        GroupsApi(storage.calls, calls, groups, reader, parents, results, clock),
        ResultsApi(storage.calls, storage.records, engine.ends, groups, results),
        InvocationRecords(
            catalog,
            engine.controls,
            storage.records,
            engine.dispatcher,
            engine.pool,
            clock,
            engine.explainer,
            LinkReplies(storage.calls, identity, groups.wake),
        ),
        _logs(engine),
        engine.deliveries_api,
        AsyncSettingsApi(catalog, engine.logs, engine.status_log, region),
        ControlsApi(engine.controls),
        InvocationActionsApi(catalog, engine.redrive, cancelling, storage.identity, clock, limit),
        engine.triggers_api,
        GatewayApi(resources.triggers, engine.triggers_api, region),
        ReservedApi(reservations, region),
        EventsApi(resources.events),
        DependenciesApi(resources.dependencies, engine.codes),
        TagsApi(resources.tags, catalog, region),
        PackagesApi(catalog, engine.codes, region),
        MetricsApi(catalog, engine.usage, reservations, instances, clock, region),
        ProjectListsApi(
            catalog,
            reservations,
            instances,
            engine.pool.check_runtime,
            engine.pool.interpreters,
            engine.settings.agencies,
        ),
        TracingAndSnapshotsApi(catalog, resources.tracing),
        BackupsApi(backups_of(engine.settings, storage.copy_to, clock)),
        ClockApi(engine.clock_guard),
        NodesApi(engine.pool.nodes),
        HealthApi(health, details=engine.authenticator is None or engine.settings.auth.open_metrics),
        Document(OPERATIONS, __version__, engine.plugins.mounts.operations),
    ]


def _logs(engine: EngineParts) -> LogsApi:
    logs = LogsApi(
        engine.catalog,
        engine.storage.records,
        engine.storage.identity,
        engine.dispatcher,
        engine.logs,
        engine.pool,
        engine.dispatcher.attempt_ended.connected,
    )
    engine.intake.closed.connect(logs.stop)
    return logs


def _health(engine: EngineParts) -> HealthChecks:
    health = EngineHealth(engine)
    return HealthChecks(
        alive=health.problems,
        degraded=health.losses,
        ready=health.reasons_not_ready,
        about=health.about,
        metrics=lambda project: rendered([*read_figures(engine), *read_families(engine, health, project)]),
        open_names=lambda: engine.authenticator is None or not engine.authenticator.principals.several,
    )
